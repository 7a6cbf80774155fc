//! Users, sessions and tokens.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, params};

use super::reader::records;
use super::{Ledger, Reader, audit};
use crate::ledger::{Actor, Deed, LedgerError, Result, Role, Scope, StoredUser, TokenRow, UserRow, format_time, now};

/// The password hash of users whom an OpenID provider logs in: no password has it.
const BY_PROVIDER: &str = "!";

/// How old a note of use may be before it is written anew.
const NOTE_EVERY: Duration = Duration::from_secs(60);

impl Ledger {
    /// Adds a user. Blocks. `false` where there is one of this name.
    pub fn add_user(&self, name: &str, role: Role, password_hash: &str, actor: &Actor) -> Result<bool> {
        let (name, hash, actor) = (name.to_owned(), password_hash.to_owned(), actor.clone());
        self.write_blocking(move |connection| {
            let sql = "INSERT INTO users (name, role, password_hash, created_at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
            let added = connection.execute(sql, params![name, role.name(), hash, now()])? == 1;
            if added {
                let details = serde_json::json!({ "user": name, "role": role.name() });
                audit::append(connection, &Deed { actor, name: "user.add", study_uid: None, details })?;
            }
            Ok(added)
        })
    }

    /// Adds a user whom an OpenID provider has logged in, or gives them the role that the provider says; another role ends their other
    /// sessions. `subject` is whom the provider knows them as. Blocks. `false`, and nothing is changed, where the name is somebody
    /// else's: a user's with a password, for whom the provider must not speak, or another subject's.
    pub fn put_provided_user(&self, name: &str, subject: &str, role: Role, actor: &Actor) -> Result<bool> {
        let (name, subject, actor) = (name.to_owned(), subject.to_owned(), actor.clone());
        self.write_blocking(move |connection| {
            let sql = "SELECT role, password_hash, subject FROM users WHERE name = ?1";
            let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
            let known: Option<(String, String, Option<String>)> = connection.query_row(sql, [&name], row).optional()?;
            let deed = match known {
                Some((_, hash, known)) if hash != BY_PROVIDER || known.as_ref() != Some(&subject) => return Ok(false),
                Some((former, ..)) if former == role.name() => return Ok(true),
                Some(_) => "user.change",
                None => "user.add",
            };
            connection.execute(
                "INSERT INTO users (name, role, password_hash, created_at, subject) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (name) DO UPDATE SET role = excluded.role",
                params![name, role.name(), BY_PROVIDER, now(), subject],
            )?;
            connection.execute("DELETE FROM sessions WHERE user = ?1", [&name])?;
            let details = serde_json::json!({ "user": name, "role": role.name(), "by": "OpenID provider" });
            audit::append(connection, &Deed { actor, name: deed, study_uid: None, details })?;
            Ok(true)
        })
    }

    /// Ends the sessions of whomever an OpenID provider knows as `subject`: they may no longer come in. Blocks.
    pub fn end_provided_sessions(&self, subject: &str) -> Result<()> {
        let subject = subject.to_owned();
        self.write_blocking(move |connection| {
            let sql = "DELETE FROM sessions WHERE user IN (SELECT name FROM users WHERE subject = ?1)";
            connection.execute(sql, [subject])?;
            Ok(())
        })
    }

    /// Removes a user with all sessions. Blocks. `false` where there is none of this name.
    pub fn remove_user(&self, name: &str, actor: &Actor) -> Result<bool> {
        let (name, actor) = (name.to_owned(), actor.clone());
        self.write_blocking(move |connection| {
            let removed = connection.execute("DELETE FROM users WHERE name = ?1", [&name])? == 1;
            if removed {
                let details = serde_json::json!({ "user": name });
                audit::append(connection, &Deed { actor, name: "user.remove", study_uid: None, details })?;
            }
            Ok(removed)
        })
    }

    /// Changes password or role of a user, and ends all sessions. Blocks. `false` where there is none of this name.
    pub fn change_user(
        &self,
        name: &str,
        password_hash: Option<&str>,
        role: Option<Role>,
        actor: &Actor,
    ) -> Result<bool> {
        let (name, hash, actor) = (name.to_owned(), password_hash.map(str::to_owned), actor.clone());
        self.write_blocking(move |connection| {
            let role = role.map(Role::name);
            let sql =
                "UPDATE users SET password_hash = coalesce(?2, password_hash), role = coalesce(?3, role), failures = 0,
                           locked_until = NULL WHERE name = ?1";
            let changed = connection.execute(sql, params![name, hash, role])? == 1;
            if changed {
                connection.execute("DELETE FROM sessions WHERE user = ?1", [&name])?;
                let details = serde_json::json!({ "user": name, "password": hash.is_some(), "role": role });
                audit::append(connection, &Deed { actor, name: "user.change", study_uid: None, details })?;
            }
            Ok(changed)
        })
    }

    /// Notes a wrong password. After `most` in a row the user is locked out for a while. Blocks.
    pub fn note_wrong_password(&self, name: &str, most: u32, lock_out: Duration, actor: &Actor) -> Result<()> {
        let (name, actor) = (name.to_owned(), actor.clone());
        self.write_blocking(move |connection| {
            let until = format_time(Timestamp::now() + lock_out);
            let sql =
                "UPDATE users SET failures = failures + 1, locked_until = iif(failures + 1 >= ?2, ?3, locked_until)
                       WHERE name = ?1 RETURNING failures";
            let failures: Option<i64> =
                connection.query_row(sql, params![name, most, until], |row| row.get(0)).optional()?;
            let locked = failures.is_some_and(|failures| failures >= i64::from(most));
            let details = serde_json::json!({ "user": name, "known": failures.is_some(), "locked": locked });
            audit::append(connection, &Deed { actor, name: "login.fail", study_uid: None, details })
        })
    }

    /// Begins a session. Blocks.
    pub fn begin_session(&self, user: &str, token_hash: &str, lasts: Duration, actor: &Actor) -> Result<()> {
        let (user, token_hash, actor) = (user.to_owned(), token_hash.to_owned(), actor.clone());
        self.write_blocking(move |connection| {
            let t = now();
            connection.execute("DELETE FROM sessions WHERE expires_at < ?1", [&t])?;
            connection.execute(
                "UPDATE users SET failures = 0, locked_until = NULL, last_login_at = ?2 WHERE name = ?1",
                params![user, t],
            )?;
            let expires = format_time(Timestamp::now() + lasts);
            let sql = "INSERT INTO sessions (token_hash, user, created_at, last_seen_at, expires_at) VALUES (?1, ?2, ?3, ?3, ?4)";
            connection.execute(sql, params![token_hash, user, t, expires])?;
            audit::append(connection, &Deed { actor, name: "login.begin", study_uid: None, details: serde_json::json!({}) })
        })
    }

    /// Ends a session. Blocks.
    pub fn end_session(&self, token_hash: &str, actor: &Actor) -> Result<()> {
        let (token_hash, actor) = (token_hash.to_owned(), actor.clone());
        self.write_blocking(move |connection| {
            if connection.execute("DELETE FROM sessions WHERE token_hash = ?1", [&token_hash])? == 1 {
                let details = serde_json::json!({});
                audit::append(connection, &Deed { actor, name: "login.end", study_uid: None, details })?;
            }
            Ok(())
        })
    }

    /// The user of a session that has neither ended nor been silent for too long, who is noted as seen. Blocks.
    pub fn use_session(&self, token_hash: &str, silence: Duration) -> Result<Option<(String, Role)>> {
        let found = self.open_session(token_hash, silence)?;
        let Some((name, role, last_seen_at)) = found else { return Ok(None) };
        // Where silence ends a session soon, a use is noted soon: one that is not noted yet would count as silence.
        if last_seen_at < format_time(Timestamp::now() - NOTE_EVERY.min(silence / 10)) {
            let token_hash = token_hash.to_owned();
            self.write_blocking(move |connection| {
                connection.execute(
                    "UPDATE sessions SET last_seen_at = ?2 WHERE token_hash = ?1",
                    params![token_hash, now()],
                )?;
                Ok(())
            })?;
        }
        Ok(Some((name, role)))
    }

    /// Adds a token. Blocks. `false` where there is one of this name.
    pub fn add_token(
        &self,
        name: &str,
        token_hash: &str,
        scopes: &[Scope],
        expires_at: Option<String>,
        actor: &Actor,
    ) -> Result<bool> {
        let (name, token_hash, actor) = (name.to_owned(), token_hash.to_owned(), actor.clone());
        let scopes = scopes.iter().map(|scope| scope.name()).collect::<Vec<_>>().join(" ");
        self.write_blocking(move |connection| {
            let sql =
                "INSERT INTO api_tokens (name, token_hash, scopes, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)
                       ON CONFLICT DO NOTHING";
            let added = connection.execute(sql, params![name, token_hash, scopes, now(), expires_at])? == 1;
            if added {
                let details = serde_json::json!({ "token": name, "scopes": scopes, "expires_at": expires_at });
                audit::append(connection, &Deed { actor, name: "token.add", study_uid: None, details })?;
            }
            Ok(added)
        })
    }

    /// Revokes a token. Blocks. `false` where there is none of this name.
    pub fn remove_token(&self, name: &str, actor: &Actor) -> Result<bool> {
        let (name, actor) = (name.to_owned(), actor.clone());
        self.write_blocking(move |connection| {
            let removed = connection.execute("DELETE FROM api_tokens WHERE name = ?1", [&name])? == 1;
            if removed {
                let details = serde_json::json!({ "token": name });
                audit::append(connection, &Deed { actor, name: "token.remove", study_uid: None, details })?;
            }
            Ok(removed)
        })
    }

    /// The name and the scopes of a token that has not ended, which is noted as used. Blocks.
    pub fn use_token(&self, token_hash: &str) -> Result<Option<(String, Vec<Scope>)>> {
        let found = self.read(|connection| {
            let sql = "SELECT name, scopes, coalesce(last_used_at, '') FROM api_tokens
                       WHERE token_hash = ?1 AND (expires_at IS NULL OR expires_at > ?2)";
            let row =
                |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?));
            Ok(connection.prepare_cached(sql)?.query_row(params![token_hash, now()], row).optional()?)
        })?;
        let Some((name, scopes, last_used_at)) = found else { return Ok(None) };
        if last_used_at < format_time(Timestamp::now() - NOTE_EVERY) {
            let token_hash = token_hash.to_owned();
            self.write_blocking(move |connection| {
                connection.execute(
                    "UPDATE api_tokens SET last_used_at = ?2 WHERE token_hash = ?1",
                    params![token_hash, now()],
                )?;
                Ok(())
            })?;
        }
        let scopes = scopes.split(' ').map(str::parse).collect::<std::result::Result<_, _>>();
        Ok(Some((name, scopes.map_err(LedgerError::unreadable)?)))
    }
}

impl Reader {
    /// The user of a session that has neither ended nor been silent for too long; that somebody asks is no use of it. Blocks.
    pub fn session(&self, token_hash: &str, silence: Duration) -> Result<Option<(String, Role)>> {
        Ok(self.open_session(token_hash, silence)?.map(|(name, role, _)| (name, role)))
    }

    /// When a session ends at the latest. Blocks.
    pub fn session_end(&self, token_hash: &str) -> Result<Option<String>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT expires_at FROM sessions WHERE token_hash = ?1")?;
            Ok(statement.query_row([token_hash], |row| row.get(0)).optional()?)
        })
    }

    /// The user of such a session, and when the last use of it was noted.
    fn open_session(&self, token_hash: &str, silence: Duration) -> Result<Option<(String, Role, String)>> {
        let found = self.read(|connection| {
            let sql = "SELECT u.name, u.role, s.last_seen_at FROM sessions s JOIN users u ON u.name = s.user
                       WHERE s.token_hash = ?1 AND s.expires_at > ?2 AND s.last_seen_at > ?3";
            let silent = format_time(Timestamp::now() - silence);
            let mut statement = connection.prepare_cached(sql)?;
            let row =
                |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?));
            Ok(statement.query_row(params![token_hash, now(), silent], row).optional()?)
        })?;
        let Some((name, role, last_seen_at)) = found else { return Ok(None) };
        Ok(Some((name, role.parse().map_err(LedgerError::unreadable)?, last_seen_at)))
    }

    /// A user with what is needed to check the password. Blocks.
    pub fn stored_user(&self, name: &str) -> Result<Option<StoredUser>> {
        let found = self.read(|connection| {
            let sql = "SELECT name, role, password_hash, locked_until FROM users WHERE name = ?1";
            let row = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get(3)?));
            Ok(connection.prepare_cached(sql)?.query_row([name], row).optional()?)
        })?;
        let Some((name, role, password_hash, locked_until)) = found else { return Ok(None) };
        let role = role.parse().map_err(LedgerError::unreadable)?;
        Ok(Some(StoredUser { name, role, password_hash, locked_until }))
    }

    /// All users, by name. Blocks.
    pub fn users(&self) -> Result<Vec<UserRow>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT * FROM users ORDER BY name")?;
            records(&mut statement, [])
        })
    }

    /// All tokens, by name. Blocks.
    pub fn tokens(&self) -> Result<Vec<TokenRow>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT * FROM api_tokens ORDER BY name")?;
            records(&mut statement, [])
        })
    }
}
