//! The parts of pages: the reader's language, and a picture for each product. No I/O.

mod language;
mod picture;

pub use language::Language;
pub use picture::picture;

/// An amount in euros, as it is written in every language of the shop: `€1,250.00`.
pub fn euros(cents: i64) -> String {
    let digits = (cents / 100).to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("€{grouped}.{:02}", cents % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn euros_have_groups_and_two_decimals() {
        assert_eq!(
            [0, 5, 890, 125_000, 1_000_000_000].map(euros),
            ["€0.00", "€0.05", "€8.90", "€1,250.00", "€10,000,000.00"]
        );
    }
}
