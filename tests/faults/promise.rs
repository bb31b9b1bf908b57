//! What a row promises, in words and as a judgement of its figures.

use crate::figures::Figures;
use std::fmt;

/// One promise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Promise {
    /// So many requests lost at most.
    Lost(usize),
    /// So long without an answer at most, milliseconds.
    Gap(u64),
    /// The last failure so long after the healing at most, milliseconds.
    Recovered(i64),
    /// Nothing is answered well later than so many milliseconds after the fault, until it is healed.
    Closed(i64),
    /// Nothing is lost earlier than so many milliseconds after the fault.
    LostNotBefore(i64),
    /// So many MiB more at the peak than before.
    Rss(f64),
    /// So many MiB more at the end than before.
    RssAfter(f64),
    /// So many series more at the end than before.
    Series(f64),
    /// At least so many good answers a second while the fault holds.
    Goodput(f64),
    /// p99 of the good answers: at most twice that before and so many milliseconds more.
    Admitted(u64),
    /// p99 of the refusals, milliseconds.
    Refused(u64),
    /// Of what else is looked at: this grew by so much at most.
    AtMost(&'static str, f64),
    /// The same, at least.
    AtLeast(&'static str, f64),
    /// Tries beyond the first, which are looked at as `more tries`: a share of the requests in percent, and a rate.
    Tries(f64, f64),
}

impl Promise {
    pub(crate) fn is_kept(&self, figures: &Figures) -> bool {
        let [before, peak, after] = figures.gauges;
        let more = |name: &str| figures.more.iter().find(|(at, _)| *at == name);
        match *self {
            Self::Lost(most) => figures.lost <= most,
            Self::Gap(most) => figures.gap <= most,
            Self::Recovered(most) => figures.recover.unwrap_or(0) <= most,
            Self::Closed(after) => figures.during.last_good.unwrap_or(0) <= after,
            Self::LostNotBefore(at) => figures.first.is_none_or(|first| first >= at),
            Self::Rss(most) => peak.rss.max(after.rss) - before.rss <= most,
            Self::RssAfter(most) => after.rss - before.rss <= most,
            Self::Series(most) => after.series - before.series <= most,
            Self::Goodput(least) => figures.during.goodput >= least,
            Self::Admitted(more) => figures.during.admitted <= 2 * figures.p99[0] + more,
            Self::Refused(most) => figures.during.refused <= most,
            Self::AtMost(name, most) => more(name).is_some_and(|(_, grown)| *grown <= most),
            Self::AtLeast(name, least) => more(name).is_some_and(|(_, grown)| *grown >= least),
            Self::Tries(percent, rate) => more("more tries").is_some_and(|(_, tries)| {
                *tries <= figures.requests as f64 * percent / 100.0 + rate * (figures.seconds + 1.0)
            }),
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Lost(0) => write!(f, "lost 0"),
            Self::Lost(most) => write!(f, "lost <= {most}"),
            Self::Gap(most) => write!(f, "gap <= {most} ms"),
            Self::Recovered(most) => write!(f, "recovered <= {most} ms"),
            Self::Closed(after) => write!(f, "nothing passes later than {after} ms"),
            Self::LostNotBefore(at) => write!(f, "lost 0 in the first {at} ms"),
            Self::Rss(most) => write!(f, "RSS + <= {most} MiB"),
            Self::RssAfter(most) => write!(f, "RSS after + <= {most} MiB"),
            Self::Series(most) => write!(f, "series + <= {most}"),
            Self::Goodput(least) => write!(f, "goodput >= {least}/s"),
            Self::Admitted(more) => write!(f, "p99 of admitted <= 2 x before + {more} ms"),
            Self::Refused(most) => write!(f, "p99 of refusals <= {most} ms"),
            Self::AtMost(name, 0.0) => write!(f, "{name} 0"),
            Self::AtMost(name, most) => write!(f, "{name} <= {most}"),
            Self::AtLeast(name, least) => write!(f, "{name} >= {least}"),
            Self::Tries(percent, rate) => write!(f, "more tries <= {percent} % + {rate}/s"),
        }
    }
}
