//! A picture for each product, made of its sku: tiles of quarter circles, like a pattern on china.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// Tiles in a row.
const COLUMNS: usize = 4;
const ROWS: usize = 3;
/// The side of a tile.
const SIDE: usize = 60;

/// An SVG image. The same sku always gives the same.
pub fn picture(sku: &str) -> String {
    let bytes: [u8; 32] = Sha256::digest(sku).into();
    let hue = usize::from(bytes[0]) * 360 / 256;
    let other = (hue + 150 + usize::from(bytes[1]) % 60) % 360;
    let colours =
        [format!("hsl({hue} 45% 38%)"), format!("hsl({hue} 40% 62%)"), format!("hsl({other} 55% 58%)")];
    let (width, height) = (COLUMNS * SIDE, ROWS * SIDE);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\">\
         <rect width=\"{width}\" height=\"{height}\" fill=\"hsl({hue} 35% 88%)\"/>"
    );
    for tile in 0..COLUMNS * ROWS {
        // The left half is mirrored.
        let (row, column) = (tile / COLUMNS, tile % COLUMNS);
        let mirrored = column >= COLUMNS / 2;
        let seed = bytes[2 + row * 2 + if mirrored { COLUMNS - 1 - column } else { column }];
        let (shape, colour) = (seed % 5, &colours[usize::from(seed / 5) % 3]);
        let (x, y) = (column * SIDE, row * SIDE);
        let flip = if mirrored {
            format!("translate({} {y}) scale(-1 1)", x + SIDE)
        } else {
            format!("translate({x} {y})")
        };
        let path = match shape {
            0 => "M0 0H60A60 60 0 0 1 0 60Z",
            1 => "M60 60V0A60 60 0 0 0 0 60Z",
            2 => "M0 0A60 60 0 0 1 60 60A60 60 0 0 1 0 0Z",
            3 => "M30 6A24 24 0 1 1 29.9 6Z",
            _ => "M0 60A30 30 0 0 1 60 60ZM0 30A30 30 0 0 1 60 30Z",
        };
        // Writing to a String cannot fail.
        let _ = write!(
            svg,
            "<path transform=\"{flip}\" fill=\"{colour}\" stroke=\"{colour}\" stroke-width=\".6\" d=\"{path}\"/>"
        );
    }
    svg.push_str("</svg>");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sku_has_one_picture_and_another_sku_another() {
        assert_eq!(picture("TEA-GREEN"), picture("TEA-GREEN"));
        assert_ne!(picture("TEA-GREEN"), picture("TEA-BLACK"));
        assert!(!picture("<script>").contains("script"));
    }
}
