//! How commands write what they found, for people and for programs.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;
use triaged::ledger::{Field, Record};

use super::{Result, terminal};

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    Json,
    Csv,
}

pub fn write_json(value: &impl Serialize) -> Result<()> {
    let json = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
    writeln!(io::stdout().lock(), "{}", terminal::clean_json(&json))?;
    Ok(())
}

pub fn write_csv(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Result<()> {
    let into_io = |error: csv::Error| match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    };
    let mut writer = csv::Writer::from_writer(io::stdout().lock());
    writer.write_record(header).map_err(into_io)?;
    for row in rows {
        writer.write_record(row).map_err(into_io)?;
    }
    writer.flush()?;
    Ok(())
}

/// Records as CSV: all their columns, by the names that the views have.
pub fn write_records<R: Record>(records: &[R]) -> Result<()> {
    write_csv(R::COLUMNS, records.iter().map(|record| record.fields().into_iter().map(field).collect()))
}

fn field(field: Field) -> String {
    match field {
        Field::Null => String::new(),
        Field::Integer(value) => value.to_string(),
        Field::Real(value) => value.to_string(),
        Field::Text(value) => text(Some(&value)),
    }
}

/// A CSV field of text that came from the network.
pub fn text(value: Option<&str>) -> String {
    value.map(|text| terminal::clean_csv(text).into_owned()).unwrap_or_default()
}

/// A CSV field of our own: numbers, times, states.
pub fn own<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}
