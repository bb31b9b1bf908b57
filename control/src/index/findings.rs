//! What is suspicious between the objects, kept: computed anew for an object when something it was computed from changes, so
//! that a change costs what it touches and not what the mesh holds.

use crate::manifest::{Kind, ObjectKey, Problem};
use crate::views::findings::{self, Finding};
use crate::views::world::{Topic, World};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Findings by object. Only of objects that have some, and topics only of those that were computed from others.
#[derive(Debug, Default)]
pub(super) struct Findings {
    found: BTreeMap<ObjectKey, Vec<Finding>>,
    reads: HashMap<ObjectKey, HashSet<Topic>>,
    readers: HashMap<Topic, HashSet<ObjectKey>>,
}

/// What one change made of the problems.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// What is wrong now and was not.
    pub new: Vec<Problem>,
    /// What was wrong and is not any more.
    pub gone: Vec<Problem>,
    /// Objects of which something else is found now, and splits that a Service has changed under.
    pub objects: BTreeSet<ObjectKey>,
    /// Files (or what stands for one) of which something else is wrong now.
    pub files: BTreeSet<Arc<str>>,
}

impl News {
    /// Notes what differs between two states of the same thing; true if anything does.
    pub(super) fn compare(&mut self, before: &[Problem], after: &[Problem]) -> bool {
        let lacks = |all: &[Problem], one: &&Problem| !all.contains(one);
        let (old, new) = (self.gone.len(), self.new.len());
        let gone = before.iter().filter(|one| lacks(after, one));
        self.gone.extend(gone.cloned());
        let news = after.iter().filter(|one| lacks(before, one));
        self.new.extend(news.cloned());
        (old, new) != (self.gone.len(), self.new.len())
    }
}

impl Findings {
    /// Computes the findings of every object anew that is one of the topics, or was computed from one.
    pub(super) fn refresh(&mut self, world: &World, touched: &HashSet<Topic>, news: &mut News) {
        let mut stale = BTreeSet::new();
        for topic in touched {
            if let Topic::Object(key) = topic {
                stale.insert(key.clone());
            }
            let readers = self.readers.get(topic).into_iter().flatten();
            if matches!(topic, Topic::Object(key) if key.kind == Kind::Service) {
                let splits = readers.clone().filter(|it| it.kind == Kind::TrafficSplit);
                news.objects.extend(splits.cloned());
            }
            stale.extend(readers.cloned());
        }
        for key in stale {
            self.compute(world, key, news);
        }
    }

    /// What is found of one object.
    pub(super) fn of(&self, key: &ObjectKey) -> &[Finding] {
        self.found.get(key).map_or(&[], Vec::as_slice)
    }

    /// Everything, where it stands now.
    pub(super) fn all<'a>(&'a self, world: &'a World) -> impl Iterator<Item = Problem> + 'a {
        self.found.iter().flat_map(|(key, findings)| {
            // The object may have moved in its file since, which is no change of it.
            let origin = world.object(key).map(|loaded| &loaded.origin);
            findings.iter().map(move |finding| {
                let mut problem = finding.problem.clone();
                if let Some(origin) = origin {
                    problem.origin = origin.clone();
                }
                problem
            })
        })
    }

    fn compute(&mut self, world: &World, key: ObjectKey, news: &mut News) {
        self.unread(&key);
        let (findings, mut reads) = findings::of(world, &key);
        reads.remove(&Topic::Object(key.clone()));
        let before = problems(self.of(&key));
        if news.compare(&before, &problems(&findings)) {
            news.objects.insert(key.clone());
        }
        match findings.is_empty() {
            true => drop(self.found.remove(&key)),
            false => drop(self.found.insert(key.clone(), findings)),
        }
        if reads.is_empty() {
            return;
        }
        for topic in &reads {
            let readers = self.readers.entry(topic.clone()).or_default();
            readers.insert(key.clone());
        }
        self.reads.insert(key, reads);
    }

    fn unread(&mut self, key: &ObjectKey) {
        for topic in self.reads.remove(key).into_iter().flatten() {
            if let Some(readers) = self.readers.get_mut(&topic) {
                readers.remove(key);
                if readers.is_empty() {
                    self.readers.remove(&topic);
                }
            }
        }
    }
}

fn problems(findings: &[Finding]) -> Vec<Problem> {
    findings.iter().map(|it| it.problem.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Index;
    use crate::source::Event;
    use crate::views::fixtures::{events, pod, service, split, strict};

    fn told(problems: &[Problem]) -> Vec<&str> {
        problems.iter().map(|it| it.message.as_str()).collect()
    }

    #[test]
    fn what_a_change_touches_is_found_anew_and_nothing_else() {
        let index = Index::new(strict(), []);
        let web = split(
            "web",
            "{service: web, backends: [{service: v1, weight: 1}]}",
        );
        let news = index.apply(events(&web));
        assert_eq!(
            told(&news.new),
            ["there is no Service default/web; the split does nothing until there is"]
        );
        assert_eq!(news.objects.len(), 1);
        let news = index.apply(events(&pod("other", "other", "10.0.0.9")));
        assert_eq!(news, News::default(), "a pod is no news for a split");
        let news = index.apply(events(&service("web", "web", "10.96.0.1")));
        assert_eq!(
            told(&news.new),
            ["there is no Service default/v1; the others share its part"]
        );
        assert_eq!(news.gone.len(), 1, "{news:?}");
        let news = index.apply(events(&service("v1", "v1", "10.96.0.2")));
        assert_eq!((news.new.len(), news.gone.len()), (0, 1));
        assert_eq!(index.problems(), []);
        let news = index.apply(vec![Event::Delete(ObjectKey::new(
            Kind::Service,
            "default",
            "v1",
        ))]);
        assert_eq!(news.new.len(), 1);
        let news = index.apply(vec![Event::Delete(ObjectKey::new(
            Kind::TrafficSplit,
            "default",
            "web",
        ))]);
        assert_eq!((news.new.len(), news.gone.len()), (0, 1));
    }

    #[test]
    fn of_an_object_that_is_wrong_everywhere_the_rest_is_counted() {
        let index = Index::new(strict(), []);
        index.apply(events(&service("web", "web", "10.96.0.1")));
        let backends: Vec<String> = (0..200)
            .map(|at| format!("{{service: v{at}, weight: 1}}"))
            .collect();
        let spec = format!("{{service: web, backends: [{}]}}", backends.join(", "));
        let news = index.apply(events(&split("web", &spec)));
        assert_eq!(news.new.len(), 51);
        assert_eq!(
            told(&news.new).last(),
            Some(&"150 further findings are not shown")
        );
    }

    #[test]
    fn nothing_is_kept_of_objects_that_are_gone() {
        let index = Index::new(strict(), []);
        let web = split(
            "web",
            "{service: web, backends: [{service: v1, weight: 1}]}",
        );
        index.apply(events(&web));
        let key = ObjectKey::new(Kind::TrafficSplit, "default", "web");
        index.apply(vec![Event::Delete(key)]);
        let state = index.state.lock();
        let Findings {
            found,
            reads,
            readers,
        } = &state.findings;
        assert!(found.is_empty() && reads.is_empty() && readers.is_empty());
    }
}
