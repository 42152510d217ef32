//! Sizes as people write them: `512`, `64KiB`, `64MiB`, `10GiB`.

const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads a size in bytes: a whole number, with a unit of B, KiB, MiB, GiB or TiB or none.
/// `None` for any other text, and for sizes that a `u64` can't hold.
pub fn parse_size(text: &str) -> Option<u64> {
    let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit));
    let (number, factor) = match unit {
        Some((unit, factor)) => (text.strip_suffix(unit)?.trim_end(), *factor),
        None => (text, 1),
    };
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    if digits { number.parse::<u64>().ok()?.checked_mul(factor) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("512", Some(512)),
            ("512B", Some(512)),
            ("64KiB", Some(65_536)),
            ("64 MiB", Some(67_108_864)),
            ("10GiB", Some(10_737_418_240)),
            ("1TiB", Some(1 << 40)),
            ("64MB", None),
            ("-1", None),
            ("1.5GiB", None),
            ("GiB", None),
            ("", None),
            ("99999999TiB", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }
}
