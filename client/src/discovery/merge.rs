//! Puts together what the sources saw: one gateway each, however many ways lead to it.

use openclaw_schema::discovery::LOCAL_DOMAIN;

use super::beacon::{Beacon, Sighting, order};

/// How many gateways are kept. A network that announces more is not well.
const MAX_GATEWAYS: usize = 1000;

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Found {
    sightings: Vec<Sighting>,
}

impl Found {
    /// Adds a sighting. Its gateway, if it is new or looks otherwise than before.
    pub(super) fn add(&mut self, mut sighting: Sighting) -> Option<Beacon> {
        sighting.sort_addresses();
        let beacon = sighting.beacon()?;
        let is_instance = |known: &Sighting| {
            known.domain == sighting.domain && known.instance.eq_ignore_ascii_case(&sighting.instance)
        };
        if let Some(known) = self.sightings.iter_mut().find(|known| is_instance(known)) {
            let has_changed = *known != sighting;
            *known = sighting;
            return has_changed.then_some(beacon);
        }
        // The same gateway in another domain. What the LAN says comes first: it is nearer.
        let elsewhere =
            |known: &Sighting| known.domain != sighting.domain && known.shares_endpoint(&sighting);
        if let Some(known) = self.sightings.iter_mut().find(|known| elsewhere(known)) {
            if sighting.domain != LOCAL_DOMAIN {
                return None;
            }
            *known = sighting;
            return Some(beacon);
        }
        if self.sightings.len() == MAX_GATEWAYS {
            return None;
        }
        self.sightings.push(sighting);
        Some(beacon)
    }

    /// Takes an instance out.
    pub(super) fn remove(&mut self, instance: &str, domain: &str) {
        self.sightings
            .retain(|known| known.domain != domain || !known.instance.eq_ignore_ascii_case(instance));
    }

    /// The gateways, sorted.
    pub(super) fn into_beacons(self) -> Vec<Beacon> {
        let mut beacons: Vec<Beacon> = self.sightings.iter().filter_map(Sighting::beacon).collect();
        beacons.sort_by(order);
        beacons
    }
}

#[cfg(test)]
mod tests {
    use super::{super::beacon::tests::sighting, *};

    fn names(found: Found) -> Vec<(String, String)> {
        found.into_beacons().into_iter().map(|beacon| (beacon.instance_name, beacon.domain)).collect()
    }

    fn owned(names: &[(&str, &str)]) -> Vec<(String, String)> {
        names.iter().map(|(name, domain)| ((*name).to_owned(), (*domain).to_owned())).collect()
    }

    #[test]
    fn an_instance_is_one_gateway_and_comes_again_only_when_it_changed() {
        let mut found = Found::default();
        assert!(found.add(sighting("b", "local.", "10.0.0.1", 1)).is_some());
        assert!(found.add(sighting("B", "local.", "10.0.0.1", 1)).is_some(), "its name changed");
        assert!(found.add(sighting("B", "local.", "10.0.0.1", 1)).is_none());
        assert!(found.add(sighting("B", "local.", "10.0.0.2", 1)).is_some(), "its address changed");
        assert!(found.add(sighting("a", "local.", "10.0.0.2", 1)).is_some(), "another instance");
        assert_eq!(names(found), owned(&[("a", "local."), ("B", "local.")]));
    }

    #[test]
    fn one_endpoint_in_two_domains_is_one_gateway_and_the_lan_counts() {
        for order in [[0, 1], [1, 0]] {
            let both = [
                sighting("vm (OpenClaw)", "local.", "100.64.0.5", 1),
                sighting("vm-gateway", "openclaw.internal.", "100.64.0.5", 1),
            ];
            let mut found = Found::default();
            for index in order {
                found.add(both[index].clone());
            }
            assert_eq!(names(found), owned(&[("vm (OpenClaw)", "local.")]));
        }
        // Ports and addresses that mean another place in another network tell them apart.
        let mut found = Found::default();
        found.add(sighting("a", "local.", "10.0.0.1", 1));
        found.add(sighting("b", "w.", "10.0.0.1", 2));
        found.add(sighting("c", "local.", "fe80::1", 1));
        found.add(sighting("d", "w.", "fe80::1", 1));
        assert_eq!(names(found).len(), 4);
    }

    #[test]
    fn what_says_goodbye_is_gone() {
        let mut found = Found::default();
        found.add(sighting("a", "local.", "10.0.0.1", 1));
        found.add(sighting("a", "w.", "10.0.0.2", 1));
        found.remove("A", "local.");
        assert_eq!(names(found), owned(&[("a", "w.")]));
    }

    #[test]
    fn a_flood_of_announcements_is_bounded() {
        let mut found = Found::default();
        for number in 0..2 * MAX_GATEWAYS {
            found.add(sighting(&format!("g{number}"), "local.", "10.0.0.1", 1));
        }
        assert_eq!(found.sightings.len(), MAX_GATEWAYS);
    }
}
