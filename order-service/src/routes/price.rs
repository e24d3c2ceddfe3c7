//! A price in a request: `{ "amount": 1250, "currency": "EUR" }`.

use shared::body::{Fields, FromBody, Invalid};

use crate::domain::{Price, money::CURRENCY};

#[derive(Debug, Clone, Copy)]
pub(super) struct PriceBody(pub(super) Price);

impl FromBody for PriceBody {
    fn from_body(fields: &mut Fields<'_>) -> Result<Self, Invalid> {
        let amount = fields
            .required::<i64>("amount")
            .and_then(|amount| Price::try_from(amount).or_else(|error| fields.reject("amount", error)));
        let currency = fields.required::<String>("currency").and_then(|currency| {
            if currency == CURRENCY { Ok(()) } else { fields.reject("currency", "must be EUR") }
        });
        currency.and(amount).map(Self)
    }
}
