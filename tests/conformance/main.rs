//! What Kafka's own tests and documentation assert, case by case, with their numbers.

mod b;
mod p;
mod plans;
mod r;
mod rr;
