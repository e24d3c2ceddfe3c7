//! What is sold, and what an order is and may become: types and transitions, no I/O.

pub mod money; // euros, whole cents, checked
pub mod product; // what is sold
pub mod stock; // how much of it there is
pub mod cart; // what a customer wants
pub mod status; // the table of an order's statuses
pub mod order; // what was agreed, and how far it is

pub use cart::{Cart, CartLine, PaymentToken, Quantity};
pub use money::{Money, MoneyError};
pub use order::{Line, Order, Terms};
pub use product::{Description, Details, Name, Price, Product, Sku};
pub use status::{IllegalTransition, Reason, Status};
pub use stock::{Delta, Level, MOST_ON_HAND, Stock};
