//! Which of the forms that an operation can give its caller would rather have (RFC 9110 §12.5.1).

/// The index of the best form in `offers` (`type/subtype`, preferred first); `None` when the caller takes none.
pub(crate) fn choose(accept: Option<&str>, offers: &[&str]) -> Option<usize> {
    let Some(accept) = accept.map(str::trim).filter(|text| !text.is_empty()) else { return Some(0) };
    let ranges: Vec<(&str, f32)> = accept.split(',').filter_map(range).collect();
    let mut best: Option<(usize, f32)> = None;
    for (index, offer) in offers.iter().enumerate() {
        // the most specific range that fits decides
        let quality = ranges
            .iter()
            .filter_map(|(range, quality)| fits(range, offer).map(|precision| (precision, *quality)))
            .max_by_key(|(precision, _)| *precision)
            .map_or(0.0, |(_, quality)| quality);
        if quality > best.map_or(0.0, |(_, best)| best) {
            best = Some((index, quality));
        }
    }
    best.map(|(index, _)| index)
}

fn range(text: &str) -> Option<(&str, f32)> {
    let mut parts = text.split(';').map(str::trim);
    let range = parts.next().filter(|range| range.contains('/'))?;
    let quality = parts
        .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
        .map_or(Some(1.0), |q| q.trim().parse::<f32>().ok())?;
    Some((range, quality))
}

fn fits(range: &str, offer: &str) -> Option<u8> {
    if range.eq_ignore_ascii_case(offer) {
        return Some(2);
    }
    let (kind, _) = offer.split_once('/')?;
    match range.split_once('/')? {
        ("*", "*") => Some(0),
        (range, "*") if range.eq_ignore_ascii_case(kind) => Some(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::choose;

    #[test]
    fn follows_the_callers_preference() {
        const OFFERS: &[&str] = &["application/json", "image/png", "image/svg+xml", "text/plain"];
        for (accept, index) in [
            ("", Some(0)),
            ("*/*", Some(0)),
            ("image/png", Some(1)),
            ("IMAGE/PNG", Some(1)),
            ("image/*", Some(1)),
            ("image/svg+xml, image/png;q=0.5", Some(2)),
            ("text/plain", Some(3)),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Some(0)),
            ("image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", Some(1)),
            ("*/*, application/json;q=0", Some(1)),
            ("text/html", None),
            ("application/json;q=0", None),
        ] {
            assert_eq!(choose(Some(accept), OFFERS), index, "{accept}");
        }
        assert_eq!(choose(None, OFFERS), Some(0));
    }
}
