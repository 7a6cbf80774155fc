//! Records whose fields are the columns of a view: the mapping is written once, for every backend and for CSV.

/// The value of a column.
#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    Null,
    /// Also a flag: 0 or 1.
    Integer(i64),
    Real(f64),
    Text(String),
}

/// A column does not hold what its record expects.
#[derive(Debug, thiserror::Error)]
#[error("{expected} expected, {found:?} found")]
pub struct FieldError {
    expected: &'static str,
    found: Field,
}

/// A record whose fields are columns of the same names.
pub trait Record: Sized {
    /// The names of the columns, in order.
    const COLUMNS: &'static [&'static str];

    /// Reads a record; `column` returns the value of the column with this name.
    fn from_columns<E: From<FieldError>>(column: impl FnMut(&'static str) -> Result<Field, E>) -> Result<Self, E>;

    /// The values of the columns, in order.
    fn fields(&self) -> Vec<Field>;
}

/// A Rust type that a column can hold.
pub(super) trait Column: Sized {
    fn from_field(field: Field) -> Result<Self, FieldError>;
    fn to_field(&self) -> Field;
}

impl Column for i64 {
    fn from_field(field: Field) -> Result<i64, FieldError> {
        match field {
            Field::Integer(value) => Ok(value),
            found => Err(FieldError { expected: "an integer", found }),
        }
    }

    fn to_field(&self) -> Field {
        Field::Integer(*self)
    }
}

impl Column for bool {
    fn from_field(field: Field) -> Result<bool, FieldError> {
        match field {
            Field::Integer(value) => Ok(value != 0),
            found => Err(FieldError { expected: "0 or 1", found }),
        }
    }

    fn to_field(&self) -> Field {
        Field::Integer(i64::from(*self))
    }
}

impl Column for f64 {
    fn from_field(field: Field) -> Result<f64, FieldError> {
        match field {
            Field::Real(value) => Ok(value),
            Field::Integer(value) => Ok(value as f64),
            found => Err(FieldError { expected: "a number", found }),
        }
    }

    fn to_field(&self) -> Field {
        Field::Real(*self)
    }
}

impl Column for String {
    fn from_field(field: Field) -> Result<String, FieldError> {
        match field {
            Field::Text(value) => Ok(value),
            found => Err(FieldError { expected: "a text", found }),
        }
    }

    fn to_field(&self) -> Field {
        Field::Text(self.clone())
    }
}

impl<T: Column> Column for Option<T> {
    fn from_field(field: Field) -> Result<Option<T>, FieldError> {
        match field {
            Field::Null => Ok(None),
            field => T::from_field(field).map(Some),
        }
    }

    fn to_field(&self) -> Field {
        self.as_ref().map_or(Field::Null, T::to_field)
    }
}

/// Defines a struct that is a [`Record`]: each field is the column of its name.
macro_rules! record {
    ($(#[$about:meta])* pub struct $name:ident { $($(#[$field_about:meta])* pub $field:ident: $kind:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
        pub struct $name { $($(#[$field_about])* pub $field: $kind,)* }

        impl $crate::ledger::records::fields::Record for $name {
            const COLUMNS: &'static [&'static str] = &[$(stringify!($field)),*];

            fn from_columns<E: From<$crate::ledger::records::fields::FieldError>>(
                mut column: impl FnMut(&'static str) -> Result<$crate::ledger::records::fields::Field, E>,
            ) -> Result<Self, E> {
                use $crate::ledger::records::fields::Column;
                Ok(Self { $($field: Column::from_field(column(stringify!($field))?)?,)* })
            }

            fn fields(&self) -> Vec<$crate::ledger::records::fields::Field> {
                use $crate::ledger::records::fields::Column;
                vec![$(Column::to_field(&self.$field)),*]
            }
        }
    };
}
pub(super) use record;

#[cfg(test)]
mod tests {
    use super::*;

    record! {
        /// An example.
        pub struct Example {
            pub name: String,
            pub flagged: Option<bool>,
            pub score: Option<f64>,
        }
    }

    #[test]
    fn a_record_is_read_by_the_names_of_its_columns_and_written_in_their_order() {
        assert_eq!(Example::COLUMNS, ["name", "flagged", "score"]);
        let fields = [Field::Text("a".into()), Field::Integer(1), Field::Null];
        let column = |name| {
            let place = Example::COLUMNS.iter().position(|column| *column == name).unwrap();
            Ok::<_, FieldError>(fields[place].clone())
        };
        let example = Example::from_columns(column).unwrap();
        assert_eq!(example, Example { name: "a".into(), flagged: Some(true), score: None });
        assert_eq!(example.fields(), fields);
    }

    #[test]
    fn a_column_of_another_kind_is_an_error_that_says_both() {
        let error = Example::from_columns(|_| Ok::<_, FieldError>(Field::Real(0.5))).unwrap_err();
        assert_eq!(error.to_string(), "a text expected, Real(0.5) found");
    }
}
