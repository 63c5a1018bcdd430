//! Accounts, and charges to them that are done once.

use std::str::FromStr;
use std::time::Duration;

use fleet::Error;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Executor, PgConnection, query, query_as, query_scalar};

/// What is in each account at first.
const OPENING: i64 = 1_000_000;
/// The account that most charges go to. The others are quiet.
pub const HOT: i32 = 0;

/// A charge. The id is what makes a retry harmless.
#[derive(Clone)]
pub struct Charge {
    pub id: String,
    pub account: i32,
    pub amount: i64,
}

impl Charge {
    /// The key of its account.
    pub fn key(&self) -> String {
        format!("account {}", self.account)
    }
}

/// The charges of one process, in the order of arrival: two in three go to the hot account.
pub fn charges(process: usize, count: usize, accounts: i32) -> impl Iterator<Item = Charge> {
    (0..count).map(move |number| {
        let quiet = 1 + (number / 3 + 7 * process) as i32 % (accounts - 1).max(1);
        let account = if number % 3 == 2 { quiet.min(accounts - 1) } else { HOT };
        Charge { id: format!("{process}-{number}"), account, amount: 1 + number as i64 % 100 }
    })
}

/// Reads, computes and writes, which is what needs a lock. It is idempotent: a charge that is tried twice is done once.
///
/// No statement has a name, so a pooler may stand before the server.
pub async fn charge(db: &mut PgConnection, charge: &Charge, compute: Duration) -> Result<(), Error<String>> {
    let Charge { id, account, amount } = charge;
    let insert = "INSERT INTO charges (id, account, amount) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    let insert = query(insert).persistent(false).bind(id).bind(account).bind(amount);
    if insert.execute(&mut *db).await?.rows_affected() == 0 {
        let done = query_as("SELECT account, amount FROM charges WHERE id = $1").persistent(false).bind(id);
        return match done.fetch_one(db).await? {
            done if done == (*account, *amount) => Ok(()), // an attempt whose answer was lost had done it
            (account, amount) => Err(Error::Task(format!("{id} has charged account {account} with {amount}"))),
        };
    }
    let read = query_scalar("SELECT balance FROM accounts WHERE id = $1").persistent(false).bind(account);
    let balance: i64 = read.fetch_one(&mut *db).await?;
    tokio::time::sleep(compute).await;
    let write = query("UPDATE accounts SET balance = $2 WHERE id = $1").persistent(false);
    write.bind(account).bind(balance - amount).execute(db).await?;
    Ok(())
}

/// How to reach a schema of a database.
pub fn options(url: &str, schema: &str, name: &str) -> sqlx::Result<PgConnectOptions> {
    Ok(PgConnectOptions::from_str(url)?.options([("search_path", schema)]).application_name(name))
}

/// Creates the schema again from scratch, with accounts that have not been charged.
pub async fn open(db: &mut PgConnection, schema: &str, accounts: i32) -> sqlx::Result<()> {
    let sql = format!(
        "SET client_min_messages = warning;
        DROP SCHEMA IF EXISTS {schema} CASCADE;
        CREATE SCHEMA {schema};
        CREATE TABLE {schema}.accounts (id integer PRIMARY KEY, balance bigint NOT NULL);
        CREATE TABLE {schema}.charges (id text PRIMARY KEY, account integer NOT NULL, amount bigint NOT NULL);
        INSERT INTO {schema}.accounts SELECT id, {OPENING} FROM generate_series(0, {accounts} - 1) AS id"
    );
    db.execute(AssertSqlSafe(sql)).await?;
    Ok(())
}

/// Returns what the books say: the number of charges, their sum, and by how much the balances differ from it, in all.
pub async fn books(db: &mut PgConnection) -> sqlx::Result<(i64, i64, i64)> {
    let sql = "SELECT coalesce(sum(count), 0)::bigint, coalesce(sum(charged), 0)::bigint,
            coalesce(sum(abs(charged - ($1 - balance))), 0)::bigint
        FROM (SELECT balance, count(charges.id), coalesce(sum(amount), 0) AS charged
            FROM accounts LEFT JOIN charges ON account = accounts.id GROUP BY accounts.id) AS each";
    query_as(sql).bind(OPENING).fetch_one(db).await
}
