//! Who may act: tokens with a name and a role. Only the SHA-256 of a token is kept; its 32 random bytes cannot be guessed,
//! so a slow hash would add nothing.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use nixfleet_core::model::time::UnixMs;
pub use nixfleet_core::wire::log::Role;
use sqlx::Row;

use super::fact::{About, Fact, TokenChange};
use super::{Store, StoreError, int, sql, uint};

/// How a token begins, so that it is found where it should not be.
const PREFIX: &str = "nixfleet_";

/// Somebody who may act or look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The token's name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it was made.
    pub created: UnixMs,
}

/// A token was made.
#[derive(Debug)]
pub enum Made {
    /// This is it; it is shown once and kept nowhere.
    Token(String),
    /// There is one of that name.
    NameTaken,
}

fn hash(token: &str) -> String {
    HEXLOWER.encode(digest(&SHA256, token.as_bytes()).as_ref())
}

impl Store {
    /// Makes a token.
    pub async fn make_token(&self, name: &str, role: Role, now: UnixMs) -> Result<Made, StoreError> {
        let mut secret = [0; 32];
        SystemRandom::new().fill(&mut secret).map_err(|_| StoreError::corrupt("no randomness to be had"))?;
        let token = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&secret));
        let mut write = self.begin(now).await?;
        let made = sql("INSERT INTO tokens (name, role, hash, created_ms) VALUES ($1, $2, $3, $4) \
                        ON CONFLICT (name) DO NOTHING RETURNING name")
        .bind(name.to_owned())
        .bind(role.to_string())
        .bind(hash(&token))
        .bind(int(now.get()))
        .fetch_optional(write.raw())
        .await?;
        if made.is_none() {
            return Ok(Made::NameTaken);
        }
        let fact = Fact::TokenChanged { name: name.to_owned(), change: TokenChange::Made, role: Some(role) };
        write.append(&About::Fleet, &fact).await?;
        write.commit().await?;
        Ok(Made::Token(token))
    }

    /// Removes a token; returns whether there was one. It is refused from the next request on.
    pub async fn remove_token(&self, name: &str, now: UnixMs) -> Result<bool, StoreError> {
        let mut write = self.begin(now).await?;
        let gone = sql("DELETE FROM tokens WHERE name = $1 RETURNING name")
            .bind(name.to_owned())
            .fetch_optional(write.raw())
            .await?;
        if gone.is_none() {
            return Ok(false);
        }
        let fact = Fact::TokenChanged { name: name.to_owned(), change: TokenChange::Removed, role: None };
        write.append(&About::Fleet, &fact).await?;
        write.commit().await?;
        Ok(true)
    }

    /// Whose token it is.
    pub async fn person(&self, token: &str) -> Result<Option<Person>, StoreError> {
        let row = sql("SELECT name, role, created_ms FROM tokens WHERE hash = $1")
            .bind(hash(token))
            .fetch_optional(self.readers())
            .await?;
        row.as_ref().map(person_of).transpose()
    }

    /// All of them.
    pub async fn people(&self) -> Result<Vec<Person>, StoreError> {
        let rows =
            sql("SELECT name, role, created_ms FROM tokens ORDER BY name").fetch_all(self.readers()).await?;
        rows.iter().map(person_of).collect()
    }
}

fn person_of(row: &sqlx::any::AnyRow) -> Result<Person, StoreError> {
    let bad = |_| StoreError::corrupt("a token's role");
    Ok(Person {
        name: row.try_get("name")?,
        role: row.try_get::<String, _>("role")?.parse().map_err(bad)?,
        created: UnixMs::new(uint(row.try_get("created_ms")?)).unwrap_or(UnixMs::MAX),
    })
}
