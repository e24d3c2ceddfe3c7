//! A price in a request: `{ "amount": 1250, "currency": "EUR" }`.

use shared::body::{Fields, FromBody};

use crate::domain::{Price, money::CURRENCY};

#[derive(Debug, Clone, Copy)]
pub(super) struct PriceBody(pub(super) Price);

impl FromBody for PriceBody {
    fn from_body(fields: &mut Fields<'_>) -> Option<Self> {
        let amount = fields.required::<i64>("amount").and_then(|amount| {
            Price::try_from(amount).map_err(|error| fields.reject::<()>("amount", error)).ok()
        });
        let currency = fields.required::<String>("currency").and_then(|currency| {
            if currency == CURRENCY { Some(()) } else { fields.reject("currency", "must be EUR") }
        });
        currency.and(amount).map(Self)
    }
}
