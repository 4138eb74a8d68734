//! Text for people: tables, sizes, times. Pure. What comes from elsewhere is stripped of control characters, so that nothing an instance
//! says can play with the terminal.

/// Text without control characters.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Columns as wide as their widest cell, two spaces apart. A header that begins with `>` is set to the right.
pub(super) fn table(headers: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| clean(cell)).collect()).collect();
    let names: Vec<&str> = headers.iter().map(|header| header.trim_start_matches('>')).collect();
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
        cells.chain([names[at].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headers.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().enumerate().map(|(at, cell)| {
            let space = " ".repeat(widths[at].saturating_sub(cell.chars().count()));
            if headers[at].starts_with('>') { format!("{space}{cell}") } else { format!("{cell}{space}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let body: String = rows.iter().map(|row| line(row.iter().map(String::as_str).collect())).collect();
    line(names.clone()) + &body
}

/// `96.2 MiB`; `-` when unknown.
pub(super) fn bytes(bytes: Option<u64>) -> String {
    let Some(bytes) = bytes else { return "-".into() };
    let mut size = bytes as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{size:.1} {unit}") }
}

/// `0.3 s`, `12 min`, `5 h`, `9 days`.
pub(super) fn time(ms: u64) -> String {
    match ms {
        0..=9_999 => format!("{:.1} s", ms as f64 / 1000.0),
        10_000..=119_999 => format!("{} s", ms / 1000),
        120_000..=7_199_999 => format!("{} min", ms / 60_000),
        7_200_000..=172_799_999 => format!("{} h", ms / 3_600_000),
        _ => format!("{} days", ms / 86_400_000),
    }
}

/// `2026-11-24 05:00:00Z`; `-` for no or a nonsensical time.
pub(super) fn date(ms: u64) -> String {
    let stamp = i64::try_from(ms).ok().filter(|ms| *ms > 0).and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    stamp.map_or_else(|| "-".into(), |stamp| stamp.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_control_characters_go() {
        let rows =
            [vec!["1".to_owned(), "a\u{1b}[2Jb".to_owned(), "7".to_owned()], vec!["ü10".into(), "x".into(), "1234".into()]];
        assert_eq!(table(&["N", "NAME", ">SIZE"], &rows), "N    NAME    SIZE\n1    a [2Jb     7\nü10  x       1234\n");
    }

    #[test]
    fn sizes_times_and_dates() {
        assert_eq!(bytes(None), "-");
        assert_eq!(bytes(Some(1023)), "1023 B");
        assert_eq!(bytes(Some(100_912_881)), "96.2 MiB");
        assert_eq!(bytes(Some(u64::MAX)), "16777216.0 TiB");
        assert_eq!((time(300), time(61_000), time(720_000)), ("0.3 s".into(), "61 s".into(), "12 min".into()));
        assert_eq!(time(u64::MAX), "213503982334 days");
        assert_eq!(date(1_795_496_400_000), "2026-11-24 05:00:00Z");
        assert_eq!((date(0), date(u64::MAX)), ("-".into(), "-".into()));
    }
}
