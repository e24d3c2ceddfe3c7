//! Pages, their texts, and the files that they load.

pub mod assets; // scripts, styles and texts, in the program
pub mod pages; // pages as HTML
pub mod texts; // the sentences of both languages
