//! What was measured: rounds of samples, medians, and ratios within a round.

use crate::rivals::OURS;
use crate::works::Sample;

pub struct Row {
    pub work: &'static str,
    pub contestant: &'static str,
    /// One for each round. Rows that are compared were measured in turns, in the same rounds.
    pub samples: Vec<Sample>,
}

impl Row {
    pub fn nanos(&self) -> f64 {
        median(self.samples.iter().map(|sample| sample.nanos))
    }

    /// Processor time, where `nanos` is by the wall clock.
    pub fn busy(&self) -> Option<f64> {
        let busy = self.samples.iter().map(|sample| sample.busy).collect::<Option<Vec<_>>>()?;
        Some(median(busy.into_iter()))
    }

    /// Whether the lock mostly gave the key back to the task that had it, instead of handing it over.
    pub fn keeps(&self) -> bool {
        median(self.samples.iter().map(|sample| sample.handed)) < 50.0
    }
}

#[derive(Default)]
pub struct Results(pub Vec<Row>);

impl Results {
    pub fn row(&self, (work, contestant): (&str, &str)) -> Option<&Row> {
        self.0.iter().find(|row| row.work == work && row.contestant == contestant)
    }

    /// The median of the rounds' ratios: what slows a whole round down cancels out.
    pub fn ratio(&self, of: (&str, &str), than: (&str, &str)) -> Option<f64> {
        let (of, than) = (self.row(of)?, self.row(than)?);
        Some(median(of.samples.iter().zip(&than.samples).map(|(of, than)| of.nanos / than.nanos)))
    }

    /// The same, without what neither can help.
    pub fn net_ratio(&self, work: &str, of: &str, than: &str, without: &str) -> Option<f64> {
        let [of, than, without] = [of, than, without].map(|contestant| self.row((work, contestant)));
        let (of, than, without) = (of?, than?, without?);
        let net = |row: &Row, round: usize| row.samples[round].nanos - without.samples[round].nanos;
        Some(median((0..without.samples.len()).map(|round| net(of, round) / net(than, round))))
    }

    /// How many times as long as ours the fastest of some takes, those aside that do not hand over.
    pub fn best_ratio(&self, work: &str, contestants: &[&str]) -> Option<f64> {
        self.best_by(work, contestants, |name| self.ratio((work, name), (work, OURS)))
    }

    /// The same, without what neither can help.
    pub fn best_net_ratio(&self, work: &str, contestants: &[&str], without: &str) -> Option<f64> {
        self.best_by(work, contestants, |name| self.net_ratio(work, name, OURS, without))
    }

    fn best_by(&self, work: &str, contestants: &[&str], ratio: impl Fn(&str) -> Option<f64>) -> Option<f64> {
        let rows = contestants.iter().filter(|name| self.row((work, name)).is_some_and(|row| !row.keeps()));
        rows.filter_map(|name| ratio(name)).min_by(f64::total_cmp)
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[len / 2],
        len => (values[len / 2 - 1] + values[len / 2]) / 2.0,
    }
}
