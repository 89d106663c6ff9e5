//! What Kafka's own tests and documentation assert, case by case, with their numbers.

#![allow(clippy::unwrap_used)] // a test that panics has failed, which is what it is for

mod a;
mod b;
mod c;
mod f;
mod g;
mod g_restart;
mod l;
mod o;
mod p;
mod plans;
mod q;
mod r;
mod rr;
mod s;
mod t;
