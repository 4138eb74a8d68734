//! Values with units. Pure.

use std::time::Duration;

/// Reads `250ms`, `2s`, `10m` or `1h` (also `1.5s`); a bare `0` is zero.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit.trim() {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "" => return Err("the unit is missing".into()),
        other => return Err(format!("'{other}' is not a unit of time")),
    };
    let number: f64 = number.parse().map_err(|_| "the number before the unit is missing or wrong".to_owned())?;
    Duration::try_from_secs_f64((number * seconds * 1e6).round() / 1e6).map_err(|_| "it is too long".into())
}

/// Writes a time in its largest unit that leaves a whole number: the inverse of [`parse_duration`] to the millisecond.
pub fn show_duration(time: Duration) -> String {
    match time.as_millis() {
        0 => "0".into(),
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}

/// Reads `1048576`, `512kb`, `64mb`, `4gb` or `1tb`, in any case; units are powers of 1024, as Redis counts.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "b" => 0,
        "kb" | "k" => 10,
        "mb" | "m" => 20,
        "gb" | "g" => 30,
        "tb" | "t" => 40,
        other => return Err(format!("'{other}' is not a unit of size")),
    };
    let number: u64 = number.parse().map_err(|_| "the number is missing or wrong".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "it is too large".into())
}
