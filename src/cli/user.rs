//! `triaged user` and `triaged token`: who may use the web server.

use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use jiff::{Timestamp, ToSpan};
use triaged::config::Settings;
use triaged::ledger::{Reader, Role, Scope, format_time};
use triaged::{password, web};

use super::output::{Format, write_json, write_records};
use super::terminal::{Screen, clean, moment, text_or_dash};
use super::{Failure, Result, actor, existing_database, ledger_to_write};

#[derive(Debug, clap::Subcommand)]
pub enum User {
    /// Add a user; a password is made and printed, unless one comes on standard input
    Add {
        /// The name to log in with, as the audit log shows it: up to 128 bytes
        name: String,
        /// viewer looks; reader also acknowledges; operator also sends again and scores again; admin may everything
        #[arg(long, value_name = "ROLE", default_value = "viewer")]
        role: Role,
        /// Read the password from a line of standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// List the users
    List {
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Remove a user, and end all sessions of theirs
    Remove {
        /// Of the user
        name: String,
    },
    /// Give a user a new password, or another role; ends all sessions of theirs, and a lock-out
    Passwd {
        /// Of the user
        name: String,
        /// Another role; the password stays, unless --password-stdin
        #[arg(long, value_name = "ROLE")]
        role: Option<Role>,
        /// Read the password from a line of standard input
        #[arg(long)]
        password_stdin: bool,
    },
}

#[derive(Debug, clap::Subcommand)]
pub enum Token {
    /// Add a token for a program, and print its secret, once
    Add {
        /// What the audit log calls it: up to 128 bytes
        name: String,
        /// Its permissions, separated by commas: read, acknowledge, operate, administer, metrics
        #[arg(long, value_name = "SCOPES", value_delimiter = ',', required = true)]
        scopes: Vec<Scope>,
        /// Days until it ends; without it, it does not
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: Option<u32>,
    },
    /// List the tokens
    List {
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Revoke a token
    Remove {
        /// Of the token
        name: String,
    },
}

pub fn run(settings: &Settings, command: User) -> Result {
    let database = existing_database(settings)?;
    let mut out = io::stdout().lock();
    match command {
        User::List { format } => {
            let users = Reader::open(&database)?.users()?;
            match format {
                Format::Json => write_json(&users)?,
                Format::Csv => write_records(&users)?,
                Format::Table => {
                    let rows = users.iter().map(|user| {
                        let last = user.last_login_at.as_deref().map(moment);
                        let locked = user.locked_until.as_deref().map(moment);
                        let cells = [
                            clean(&user.name).into_owned(),
                            user.role.clone(),
                            text_or_dash(last.as_deref()),
                            text_or_dash(locked.as_deref()),
                        ];
                        (false, cells.to_vec())
                    });
                    let header = ["name", "role", "last login (UTC)", "locked until (UTC)"];
                    write!(out, "{}", Screen::of_stdout().table(&header, rows.collect()))?;
                }
            }
        }
        User::Add { name, role, password_stdin } => {
            named(&name)?;
            let password = password(password_stdin)?;
            if !ledger_to_write(settings)?.add_user(&name, role, &password::hash(&password), &actor::actor())? {
                return Err(Failure::failed(format!("there is a user {name:?} already; see triaged user passwd")));
            }
            writeln!(out, "added {} as {}", clean(&name), role.name())?;
            tell(&mut out, password_stdin, &password)?;
        }
        User::Remove { name } => {
            if !ledger_to_write(settings)?.remove_user(&name, &actor::actor())? {
                return Err(nobody(&name));
            }
            writeln!(out, "removed {}", clean(&name))?;
        }
        User::Passwd { name, role, password_stdin } => {
            let new = (role.is_none() || password_stdin).then(|| password(password_stdin)).transpose()?;
            let hash = new.as_deref().map(password::hash);
            if !ledger_to_write(settings)?.change_user(&name, hash.as_deref(), role, &actor::actor())? {
                return Err(nobody(&name));
            }
            writeln!(out, "changed {}", clean(&name))?;
            if let Some(new) = new {
                tell(&mut out, password_stdin, &new)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub fn run_token(settings: &Settings, command: Token) -> Result {
    let database = existing_database(settings)?;
    let mut out = io::stdout().lock();
    match command {
        Token::List { format } => {
            let tokens = Reader::open(&database)?.tokens()?;
            match format {
                Format::Json => write_json(&tokens)?,
                Format::Csv => write_records(&tokens)?,
                Format::Table => {
                    let rows = tokens.iter().map(|token| {
                        let (ends, used) =
                            (token.expires_at.as_deref().map(moment), token.last_used_at.as_deref().map(moment));
                        let cells = [
                            clean(&token.name).into_owned(),
                            token.scopes.clone(),
                            text_or_dash(ends.as_deref()),
                            text_or_dash(used.as_deref()),
                        ];
                        (false, cells.to_vec())
                    });
                    let header = ["name", "scopes", "ends (UTC)", "last used (UTC)"];
                    write!(out, "{}", Screen::of_stdout().table(&header, rows.collect()))?;
                }
            }
        }
        Token::Add { name, scopes, days } => {
            named(&name)?;
            let ends = days.map(|days| format_time(Timestamp::now() + (i64::from(days) * 24).hours()));
            let secret = password::token();
            let added =
                ledger_to_write(settings)?.add_token(&name, &web::digest(&secret), &scopes, ends, &actor::actor())?;
            if !added {
                return Err(Failure::failed(format!("there is a token {name:?} already")));
            }
            writeln!(out, "{secret}")?;
            writeln!(
                io::stderr(),
                "triaged: this is the only time that the secret is shown; send it as Authorization: Bearer SECRET"
            )?;
        }
        Token::Remove { name } => {
            if !ledger_to_write(settings)?.remove_token(&name, &actor::actor())? {
                return Err(Failure::failed(format!("there is no token {name:?}")));
            }
            writeln!(out, "removed {}", clean(&name))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn named(name: &str) -> Result<()> {
    let is_name = !name.trim().is_empty() && name.trim() == name && name.len() <= 128 && clean(name) == name;
    if is_name {
        Ok(())
    } else {
        Err(Failure::wrong(format!("{name:?} is no name: 1 to 128 bytes, and no character that is not seen")))
    }
}

fn nobody(name: &str) -> Failure {
    Failure::failed(format!("there is no user {name:?}"))
}

fn password(from_stdin: bool) -> Result<String> {
    if !from_stdin {
        return Ok(password::generate());
    }
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(|error| Failure::wrong(format!("standard input: {error}")))?;
    let password = line.trim_end_matches(['\r', '\n']).to_owned();
    match password.chars().count() < password::SHORTEST {
        true => Err(Failure::wrong(format!("a password has at least {} characters", password::SHORTEST))),
        false => Ok(password),
    }
}

fn tell(out: &mut impl Write, from_stdin: bool, password: &str) -> io::Result<()> {
    if from_stdin { Ok(()) } else { writeln!(out, "password: {password}") }
}
