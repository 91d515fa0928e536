//! Families as text, in the two forms that scrapers ask for.
//!
//! The library writes OpenMetrics. The older text form (version 0.0.4) differs in three points,
//! which are made here: comments have the full name of a counter or an info, there are no units,
//! and there is no mark at the end.

use std::fmt::{self, Write};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{Registry, Unit as Suffix};

use super::MetricsFormat;
use super::family::{Family, Figure, Sort, Unit};

/// The first word of every name.
const PREFIX: &str = "lsbuf";

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        self.0.iter().try_for_each(|family| encode(family, &mut encoder))
    }
}

fn encode(family: &Family, encoder: &mut DescriptorEncoder) -> fmt::Result {
    let Family { name, help, sort, unit, samples } = family;
    if samples.is_empty() {
        return Ok(());
    }
    let unit = match unit {
        Unit::None => None,
        Unit::Bytes => Some(Suffix::Bytes),
        Unit::Seconds => Some(Suffix::Seconds),
        // The library has only the plural.
        Unit::Ratio => Some(Suffix::Other("ratio".to_owned())),
    };
    let kind = match sort {
        Sort::Gauge => MetricType::Gauge,
        Sort::Counter => MetricType::Counter,
        Sort::Info => MetricType::Info,
    };
    let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), kind)?;
    for (labels, figure) in samples {
        match sort {
            Sort::Info => metric.encode_info(labels)?,
            // Without labels there are no brackets.
            _ if labels.is_empty() => sample(&mut metric, *sort, *figure)?,
            _ => sample(&mut metric.encode_family(labels)?, *sort, *figure)?,
        }
    }
    Ok(())
}

fn sample(metric: &mut MetricEncoder, sort: Sort, figure: Figure) -> fmt::Result {
    match (sort, figure) {
        (Sort::Counter, Figure::Whole(count)) => {
            let count = u64::try_from(count).unwrap_or_default();
            metric.encode_counter(&count, None::<&Exemplar<NoLabelSet, u64>>)
        }
        (_, Figure::Whole(whole)) => match i64::try_from(whole) {
            Ok(whole) => metric.encode_gauge(&whole),
            Err(_) => metric.encode_gauge(&(whole as f64)),
        },
        (_, Figure::Real(real)) => metric.encode_gauge(&real),
    }
}

/// The text of families.
pub(super) fn text_of(families: Vec<Family>, format: MetricsFormat) -> Result<String, fmt::Error> {
    let counted: Vec<(String, &str)> = families
        .iter()
        .filter_map(|family| match family.sort {
            Sort::Gauge => None,
            Sort::Counter => Some((format!("{PREFIX}_{}", family.name), "_total")),
            Sort::Info => Some((format!("{PREFIX}_{}", family.name), "_info")),
        })
        .collect();
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Families(families)));
    let mut open = String::new();
    text::encode(&mut open, &registry)?;
    if format == MetricsFormat::OpenMetrics {
        return Ok(open);
    }
    let mut older = String::with_capacity(open.len());
    for line in open.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what), Some(name), Some(rest)) => {
                let suffix = counted.iter().find(|(counted, _)| counted == name).map_or("", |(_, s)| s);
                let rest = if what == "TYPE" && rest == "info" { "gauge" } else { rest };
                writeln!(older, "# {what} {name}{suffix} {rest}")?;
            }
            _ => writeln!(older, "{line}")?,
        }
    }
    Ok(older)
}
