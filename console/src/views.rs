//! The formats that browsers and programs exchange with this program.

pub mod assets; // the files of the pages
pub mod otlp; // traces and logs that arrive
pub mod traces; // traces and logs as the pages get them
pub mod map; // programs, and the traffic between them
