//! Products, stock and orders: types and transitions, no I/O.

pub mod money; // whole euro cents
pub mod product; // the catalogue
pub mod stock; // quantities of a product
pub mod cart; // the lines of a new order
pub mod status; // an order's statuses and their transitions
pub mod order; // terms, status and version

pub use cart::{Cart, CartLine, PaymentToken, Quantity};
pub use money::{Money, MoneyError};
pub use order::{Line, Order, Terms};
pub use product::{Description, Details, Name, Price, Product, Sku};
pub use status::{IllegalTransition, Reason, Status};
pub use stock::{Delta, Level, MAX_ON_HAND, Stock};
