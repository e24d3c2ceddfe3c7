//! Messages from one service to another: in order, at least once, and once in effect, whatever dies in
//! between.

#![allow(clippy::unwrap_used, reason = "a test")]

mod batches; // events that arrive together
mod conformance; // what every transport promises, on every database
mod database; // what a relay does while its database is away
mod harness;
mod nats; // what only a broker can do
mod relay; // what a relay makes of an answer
mod requests; // several events in one request over HTTP
mod sources; // who may push what
