//! What the demo prints: a line per event, and the closing table.

use std::time::Duration;

use anyhow::Error;

/// One verified fact.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was checked.
    pub what: String,
    /// What was found.
    pub found: String,
}

/// A row.
pub fn row(what: impl Into<String>, found: impl Into<String>) -> Row {
    Row { what: what.into(), found: found.into() }
}

/// Prints a line as it happens.
pub fn say(text: &str) {
    println!("   {text}");
}

/// Prints the beginning of a step.
pub fn heading(name: &str, title: &str) {
    println!("\n== {name}: {title}");
}

/// The closing table.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<(String, Row, String)>,
}

impl Table {
    /// Adds the rows of a step that was verified.
    pub fn add(&mut self, step: &str, rows: Vec<Row>, took: Duration) {
        for (i, row) in rows.into_iter().enumerate() {
            say(&format!("verified: {}: {}", row.what, row.found));
            let time = if i == 0 { format!("{:.1} s", took.as_secs_f64()) } else { String::new() };
            self.rows.push((if i == 0 { step.to_owned() } else { String::new() }, row, time));
        }
    }

    /// Adds the step that failed.
    pub fn fail(&mut self, step: &str, why: &Error, took: Duration) {
        let first = format!("{why:#}").lines().next().unwrap_or_default().to_owned();
        println!("   FAILED: {why:#}");
        self.rows.push((step.to_owned(), row("FAILED", first), format!("{:.1} s", took.as_secs_f64())));
    }

    /// Prints it.
    pub fn print(&self) {
        let width = |pick: fn(&(String, Row, String)) -> usize| self.rows.iter().map(pick).max().unwrap_or(0);
        let (steps, facts) = (width(|r| r.0.chars().count()), width(|r| r.1.what.chars().count()));
        println!();
        for (step, row, time) in &self.rows {
            println!(
                "{step:steps$}  {:facts$}  {}{}",
                row.what,
                row.found,
                if time.is_empty() { String::new() } else { format!("  ({time})") }
            );
        }
    }
}
