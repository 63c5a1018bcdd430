//! Accounts on etcd: each has a key for its balance, and one for each charge to it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_mutex_lite::KeyedMutex;
use etcd_client::{
    Channel, Client, ConnectOptions, DeleteOptions, Error as EtcdError, GetOptions, KeyValue, PutOptions, Txn, TxnOp,
    TxnOpResponse,
};
use leases::etcd::{Error, Fence, Leases};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::Endpoint;
use url::Url;

use super::{Bank, Books, Charge, Failed, LIMIT, OPENING};

#[derive(Clone)]
pub struct Etcd {
    leases: Leases,
    prefix: String,
    url: String,
}

impl Etcd {
    fn balance(&self, account: u32) -> String {
        format!("{}account/{account}/balance", self.prefix)
    }

    fn charge(&self, charge: &Charge) -> String {
        format!("{}account/{}/charge/{}", self.prefix, charge.account, charge.id)
    }

    /// The places in the queues of our accounts.
    async fn places(&self) -> Result<Vec<KeyValue>, String> {
        let all = GetOptions::new().with_prefix();
        let mut all = self.leases.etcd.kv_client().get("lease/", Some(all)).await.map_err(sentence)?.take_kvs();
        let ours = format!("/{}account ", self.prefix);
        all.retain(|kv| kv.key_str().is_ok_and(|key| key.contains(&ours)));
        Ok(all)
    }

    /// What an HTTP client would get, which is not worth a dependency.
    async fn metrics(&self) -> io::Result<String> {
        async fn get(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) -> io::Result<String> {
            stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            Ok(text)
        }
        match self.url.strip_prefix("unix:") {
            Some(path) => get(UnixStream::connect(path).await?).await,
            None => {
                let url = Url::parse(&self.url).map_err(io::Error::other)?;
                get(TcpStream::connect(&*url.socket_addrs(|| None)?).await?).await
            }
        }
    }
}

impl From<EtcdError> for Failed {
    fn from(error: EtcdError) -> Self {
        Error::from(error).into()
    }
}

fn sentence(error: EtcdError) -> String {
    format!("etcd: {error}")
}

fn number(bytes: &[u8]) -> Option<i64> {
    str::from_utf8(bytes).ok()?.parse().ok()
}

impl Bank for Etcd {
    type Fence = Fence;

    async fn connect(url: &str, prefix: &str, lease: Duration) -> Result<Self, String> {
        let etcd = match url.strip_prefix("unix:") {
            Some(_) => {
                let endpoint = Endpoint::from_shared(url.to_string()).map_err(|error| error.to_string())?;
                Client::from_channel(Channel::Tonic(endpoint.connect_lazy()), None).await
            }
            None => {
                let (interval, timeout) = (Duration::from_secs(1), Duration::from_secs(5));
                let options = ConnectOptions::new().with_keep_alive(interval, timeout);
                Client::connect([url], Some(options)).await
            }
        };
        let mut etcd = etcd.map_err(sentence)?;
        etcd.status().await.map_err(|error| format!("cannot connect to etcd at {url}: {error}"))?;
        let leases = Leases { mutex: Arc::default(), etcd, lease, limit: LIMIT };
        Ok(Self { leases, prefix: prefix.into(), url: url.into() })
    }

    fn mutex(&self) -> &KeyedMutex<String> {
        &self.leases.mutex
    }

    fn apart(&self, limit: Duration) -> Self {
        Self { leases: Leases { mutex: Arc::default(), limit, ..self.leases.clone() }, ..self.clone() }
    }

    async fn run<T, F>(&self, account: u32, work: impl FnOnce(Fence) -> F + Send) -> Result<T, Failed>
    where
        T: Send,
        F: Future<Output = Result<T, Failed>> + Send,
    {
        let work = |fence| async { work(fence).await.map_err(Error::Task) };
        Ok(self.leases.run(format!("{}account {account}", self.prefix), work).await?)
    }

    async fn read(&self, charge: &Charge) -> Result<(i64, Option<i64>), Failed> {
        let keys = [self.balance(charge.account), self.charge(charge)];
        let read = Txn::new().and_then(keys.map(|key| TxnOp::get(key, None)));
        let answer = self.leases.etcd.kv_client().txn(read).await?;
        let mut values = answer.op_responses().into_iter().map(|answer| match answer {
            TxnOpResponse::Get(got) => got.kvs().first().and_then(|kv| number(kv.value())),
            _ => None,
        });
        let balance = values.next().flatten().ok_or_else(|| Failed::task("the account is missing"))?;
        Ok((balance, values.next().flatten()))
    }

    async fn write(&self, fence: Option<&Fence>, charge: &Charge, balance: i64) -> Result<Option<i64>, Failed> {
        let tell = fence.is_none().then(|| PutOptions::new().with_prev_key());
        let writes = [
            TxnOp::put(self.balance(charge.account), balance.to_string(), tell),
            TxnOp::put(self.charge(charge), charge.amount.to_string(), None),
        ];
        if let Some(fence) = fence {
            fence.write(writes).await?;
            return Ok(None);
        }
        let answer = self.leases.etcd.kv_client().txn(Txn::new().and_then(writes)).await?;
        match answer.op_responses().first() {
            Some(TxnOpResponse::Put(put)) => Ok(put.prev_key().and_then(|kv| number(kv.value()))),
            _ => Err(Failed::task("no answer to a write")),
        }
    }

    async fn open(&self, accounts: u32) -> Result<(), String> {
        self.clear().await?;
        for account in 0..accounts {
            let put = self.leases.etcd.kv_client().put(self.balance(account), OPENING.to_string(), None).await;
            put.map_err(sentence)?;
        }
        Ok(())
    }

    async fn books(&self, accounts: u32) -> Result<Books, String> {
        let mut books = Books::default();
        for account in 0..accounts {
            let all = format!("{}account/{account}/", self.prefix);
            let got = self.leases.etcd.kv_client().get(all, Some(GetOptions::new().with_prefix())).await;
            let (mut balance, mut charges) = (None, Vec::new());
            for kv in got.map_err(sentence)?.kvs() {
                let value = number(kv.value()).ok_or("that is no number")?;
                match kv.key() == self.balance(account).as_bytes() {
                    true => balance = Some(value),
                    false => charges.push(value),
                }
            }
            books.add(balance.ok_or("an account is missing")?, &charges);
        }
        Ok(books)
    }

    async fn leases(&self) -> Result<usize, String> {
        Ok(self.places().await?.len())
    }

    async fn end_leases(&self) -> Result<(), String> {
        for place in self.places().await? {
            self.leases.etcd.lease_client().revoke(place.lease()).await.map_err(sentence)?;
        }
        Ok(())
    }

    async fn all_leases(&self) -> Result<usize, String> {
        Ok(self.leases.etcd.lease_client().leases().await.map_err(sentence)?.leases().len())
    }

    async fn requests(&self) -> Result<u64, String> {
        let metrics = self.metrics().await.map_err(|error| format!("etcd: {error}"))?;
        let received = metrics.lines().filter(|line| line.starts_with("grpc_server_msg_received_total{"));
        Ok(received.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64)
    }

    async fn clear(&self) -> Result<(), String> {
        let all = Some(DeleteOptions::new().with_prefix());
        self.leases.etcd.kv_client().delete(&*self.prefix, all).await.map_err(sentence)?;
        Ok(())
    }
}
