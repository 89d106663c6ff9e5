//! What Kafka's own tests and documentation assert, case by case, with their numbers.

mod f;
mod o;
mod p;
mod plans;
mod r;
mod rr;
mod t;
