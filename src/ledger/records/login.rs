//! Users of the web server, their sessions, and tokens of programs.

use std::str::FromStr;

use super::fields::record;

/// The permission that a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Look at the worklist and at studies.
    Read,
    /// Acknowledge a verdict, and take that back.
    Acknowledge,
    /// Send notifications again, score again.
    Operate,
    /// Everything else.
    Administer,
    /// `/metrics` alone.
    Metrics,
}

/// The rights of a person; each role includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Viewer,
    /// Acknowledges.
    Reader,
    Operator,
    Admin,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Reader => "reader",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }

    pub fn permits(self, permission: Permission) -> bool {
        self >= match permission {
            Permission::Read | Permission::Metrics => Role::Viewer,
            Permission::Acknowledge => Role::Reader,
            Permission::Operate => Role::Operator,
            Permission::Administer => Role::Admin,
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(name: &str) -> Result<Role, String> {
        let roles = [Role::Viewer, Role::Reader, Role::Operator, Role::Admin];
        let role = roles.into_iter().find(|role| role.name() == name);
        role.ok_or_else(|| format!("{name:?} is no role: viewer, reader, operator or admin"))
    }
}

/// A permission that a token is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope(pub Permission);

impl Scope {
    pub fn name(self) -> &'static str {
        match self.0 {
            Permission::Read => "read",
            Permission::Acknowledge => "acknowledge",
            Permission::Operate => "operate",
            Permission::Administer => "administer",
            Permission::Metrics => "metrics",
        }
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(name: &str) -> Result<Scope, String> {
        let all = [
            Permission::Read,
            Permission::Acknowledge,
            Permission::Operate,
            Permission::Administer,
            Permission::Metrics,
        ];
        let scope = all.into_iter().map(Scope).find(|scope| scope.name() == name);
        scope.ok_or_else(|| format!("{name:?} is no scope: read, acknowledge, operate, administer or metrics"))
    }
}

record! {
    /// A user, without the password.
    pub struct UserRow {
        pub name: String,
        pub role: String,
        pub created_at: String,
        pub failures: i64,
        pub locked_until: Option<String>,
        pub last_login_at: Option<String>,
    }
}

record! {
    /// An API token, without its secret.
    pub struct TokenRow {
        pub name: String,
        pub scopes: String,
        pub created_at: String,
        pub expires_at: Option<String>,
        pub last_used_at: Option<String>,
    }
}

/// The record against which a password is checked.
#[derive(Clone)]
pub struct StoredUser {
    pub name: String,
    pub role: Role,
    pub password_hash: String,
    pub locked_until: Option<String>,
}
