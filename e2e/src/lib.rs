//! The whole system, as a newcomer runs it, for tests.
//!
//! [`Stack`] starts the real programs on free ports in a folder of its own; [`Person`] uses them over
//! HTTP, with a verb for each thing that a person does. The tests beside this crate tell the README's
//! stories, and what happens in them when programs are killed. [`Browser`] opens the pages of storefront and console.

mod browser;
mod looks;
mod person;
mod stack;

pub use browser::Browser;
pub use looks::check_looks;
pub use person::{PASSWORD, Person};
pub use shared::testing::{Api, Reply, eventually, key};
pub use stack::{Stack, free_ports};
