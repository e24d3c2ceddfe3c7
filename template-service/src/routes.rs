//! The routing table: one file and one line for each use case.

shared::routes! {
    api: list_things, add_thing, show_thing;
}
