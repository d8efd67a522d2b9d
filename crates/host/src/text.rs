//! What the parsers share: words of text to numbers, or to nothing.

/// A number, of a word with white space around it or not.
pub(crate) fn number(word: &str) -> Option<u64> {
    word.trim().parse().ok()
}

/// A number that is finite and not negative.
pub(crate) fn decimal(word: &str) -> Option<f64> {
    let value: f64 = word.trim().parse().ok()?;
    (value.is_finite() && value >= 0.0).then_some(value)
}

/// The first number behind `key` in a file of lines `key number`, as cgroups write them.
pub(crate) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .filter_map(|line| line.split_once(char::is_whitespace))
        .find(|(found, _)| *found == key)
        .and_then(|(_, value)| number(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number(" 12\n"), Some(12));
        assert_eq!(number("-1"), None);
        assert_eq!(number("18446744073709551616"), None);
        assert_eq!(decimal("0.25"), Some(0.25));
        assert_eq!(decimal("NaN"), None);
        assert_eq!(decimal("-0.5"), None);
        assert_eq!(decimal("inf"), None);
    }

    #[test]
    fn keys_are_whole_words() {
        let text = "total_swap 7\nswap 3\nswapcached 1\nbroken\nword x\n";
        assert_eq!(keyed(text, "swap"), Some(3));
        assert_eq!(keyed(text, "total_swap"), Some(7));
        assert_eq!(keyed(text, "broken"), None);
        assert_eq!(keyed(text, "word"), None);
    }
}
