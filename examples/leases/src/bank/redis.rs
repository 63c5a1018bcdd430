//! Accounts on Redis: each is a hash, with its balance, and the charges to it by their ids.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_mutex_lite::KeyedMutex;
use leases::redis::{Error, Fence, Leases};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, FromRedisValue, RedisError, Script};

use super::{Bank, Books, Charge, Failed, LIMIT, OPENING};

/// Without the fence, and it tells what was there.
static WRITE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local balance = redis.call('HGET', KEYS[1], ARGV[1])
        redis.call('HSET', KEYS[1], unpack(ARGV))
        return balance",
    )
});
/// What is called by such programs, and not by a script of theirs. `SET` takes a lease.
const REQUESTS: [&str; 5] = ["evalsha", "hgetall", "hmget", "script|load", "set"];

#[derive(Clone)]
pub struct Redis {
    leases: Leases,
    prefix: String,
}

impl Redis {
    fn account(&self, account: u32) -> String {
        format!("{}account {account}", self.prefix)
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, String> {
        command.query_async(&mut self.leases.redis.clone()).await.map_err(|error| format!("Redis: {error}"))
    }

    async fn keys(&self, pattern: &str) -> Result<Vec<String>, String> {
        // Characters that a pattern gives a meaning to do not occur in a prefix.
        self.ask(redis::cmd("KEYS").arg(format!("{pattern}{}*", self.prefix))).await
    }
}

impl From<RedisError> for Failed {
    fn from(error: RedisError) -> Self {
        Error::from(error).into()
    }
}

impl Bank for Redis {
    type Fence = Fence;

    async fn connect(url: &str, prefix: &str, lease: Duration) -> Result<Self, String> {
        let sentence = |error: RedisError| format!("cannot connect to Redis at {url}: {error}");
        // A busy machine may answer late, and a server that restarts is waited for.
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(Duration::from_secs(10)))
            .set_connection_timeout(Some(Duration::from_secs(10)))
            .set_max_delay(Duration::from_millis(50))
            .set_number_of_retries(100);
        let client = Client::open(url).map_err(sentence)?;
        let redis = ConnectionManager::new_with_config(client, config).await.map_err(sentence)?;
        Ok(Self { leases: Leases { mutex: Arc::default(), redis, lease, limit: LIMIT }, prefix: prefix.into() })
    }

    fn mutex(&self) -> &KeyedMutex<String> {
        &self.leases.mutex
    }

    fn apart(&self, limit: Duration) -> Self {
        Self { leases: Leases { mutex: Arc::default(), limit, ..self.leases.clone() }, prefix: self.prefix.clone() }
    }

    async fn run<T, F>(&self, account: u32, work: impl FnOnce(Fence) -> F + Send) -> Result<T, Failed>
    where
        T: Send,
        F: Future<Output = Result<T, Failed>> + Send,
    {
        let work = |fence| async { work(fence).await.map_err(Error::Task) };
        Ok(self.leases.run(self.account(account), work).await?)
    }

    async fn read(&self, charge: &Charge) -> Result<(i64, Option<i64>), Failed> {
        let fields = ["balance", &charge.id];
        let read = Cmd::hmget(self.account(charge.account), &fields);
        Ok(read.query_async(&mut self.leases.redis.clone()).await?)
    }

    async fn write(&self, fence: Option<&Fence>, charge: &Charge, balance: i64) -> Result<Option<i64>, Failed> {
        let account = self.account(charge.account);
        let fields = [("balance", balance), (&charge.id, charge.amount)];
        if let Some(fence) = fence {
            fence.write([Cmd::hset_multiple(account, &fields)]).await?;
            return Ok(None);
        }
        Ok(Some(WRITE.key(account).arg(&fields).invoke_async(&mut self.leases.redis.clone()).await?))
    }

    async fn open(&self, accounts: u32) -> Result<(), String> {
        self.clear().await?;
        for account in 0..accounts {
            self.ask::<()>(&Cmd::hset(self.account(account), "balance", OPENING)).await?;
        }
        Ok(())
    }

    async fn books(&self, accounts: u32) -> Result<Books, String> {
        let mut books = Books::default();
        for account in 0..accounts {
            let mut fields: HashMap<String, i64> = self.ask(&Cmd::hgetall(self.account(account))).await?;
            let balance = fields.remove("balance").ok_or("an account is missing")?;
            books.add(balance, &fields.into_values().collect::<Vec<_>>());
        }
        Ok(books)
    }

    async fn leases(&self) -> Result<usize, String> {
        Ok(self.keys("lease:").await?.len())
    }

    async fn end_leases(&self) -> Result<(), String> {
        for key in self.keys("lease:").await? {
            self.ask::<()>(&Cmd::pexpire(key, 0)).await?;
        }
        Ok(())
    }

    async fn all_leases(&self) -> Result<usize, String> {
        Ok(self.ask::<Vec<String>>(redis::cmd("KEYS").arg("lease:*")).await?.len())
    }

    async fn requests(&self) -> Result<u64, String> {
        let info: String = self.ask(redis::cmd("INFO").arg("commandstats")).await?;
        let calls = |line: &str| {
            let (command, figures) = line.strip_prefix("cmdstat_")?.split_once(':')?;
            let calls = figures.strip_prefix("calls=")?.split(',').next()?.parse::<u64>().ok()?;
            REQUESTS.contains(&command).then_some(calls)
        };
        Ok(info.lines().filter_map(calls).sum())
    }

    async fn clear(&self) -> Result<(), String> {
        for key in self.keys("").await?.iter().chain(&self.keys("lease:").await?) {
            self.ask::<()>(&Cmd::del(key)).await?;
        }
        Ok(())
    }
}
