//! Resources as JSON.

use serde::Serialize;
use shared::request::Page;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::Thing;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Thing)]
pub(crate) struct ThingView {
    id: Uuid,
    owner_id: Uuid,
    name: String,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// Starts at 1.
    version: i64,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Things)]
pub(crate) struct ThingsView {
    things: Vec<ThingView>,
    /// Null on the last page.
    next_cursor: Option<String>,
}

impl From<&Thing> for ThingView {
    fn from(from: &Thing) -> Self {
        Self {
            id: from.id,
            owner_id: from.owner_id,
            name: from.name.as_str().to_owned(),
            created_at: from.created_at,
            version: from.version,
        }
    }
}

impl From<Page<Thing>> for ThingsView {
    fn from(page: Page<Thing>) -> Self {
        Self { things: page.items.iter().map(ThingView::from).collect(), next_cursor: page.next_cursor }
    }
}
