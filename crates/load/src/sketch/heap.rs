//! Which slot has the least weight: a binary min-heap that knows where each slot is in it
//! (Williams 1964). Weights only grow, save when a slot is removed.
//!
//! Functions take the nodes in use, and the positions of all slots.

/// A slot and its weight. The weight lives here and not in the slot, so that sifting stays in few
/// cache lines.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    pub(super) weight: f64,
    pub(super) slot: u32,
    pub(super) reserved: u32,
}

/// The weight of a slot; zero for none.
pub(super) fn weight_of(nodes: &[Node], positions: &[u32], slot: u32) -> f64 {
    positions
        .get(slot as usize)
        .and_then(|at| nodes.get(*at as usize))
        .map_or(0.0, |node| node.weight)
}

/// Gives a slot that is in the heap more weight.
#[inline]
pub(super) fn raise(nodes: &mut [Node], positions: &mut [u32], slot: u32, by: f64) {
    let Some(&at) = positions.get(slot as usize) else {
        return;
    };
    if let Some(node) = nodes.get_mut(at as usize) {
        node.weight += by;
        sift_down(nodes, positions, at as usize);
    }
}

/// Takes in a slot: the last of the nodes is the new one, yet to be written.
pub(super) fn push(nodes: &mut [Node], positions: &mut [u32], slot: u32, weight: f64) {
    let Some(last) = nodes.len().checked_sub(1) else {
        return;
    };
    place(
        nodes,
        positions,
        last,
        Node {
            weight,
            slot,
            reserved: 0,
        },
    );
    sift_up(nodes, positions, last);
}

/// Takes out a slot; the last of the nodes is free afterwards.
pub(super) fn remove(nodes: &mut [Node], positions: &mut [u32], slot: u32) {
    let Some(at) = positions.get(slot as usize).map(|at| *at as usize) else {
        return;
    };
    let Some((&last, rest)) = nodes.split_last() else {
        return;
    };
    let length = rest.len();
    if at < length
        && let Some(nodes) = nodes.get_mut(..length)
    {
        place(nodes, positions, at, last);
        sift_up(nodes, positions, at);
        sift_down(nodes, positions, at);
    }
}

/// Says that what was in one slot is in another now.
pub(super) fn relabel(nodes: &mut [Node], positions: &mut [u32], from: u32, to: u32) {
    let Some(at) = positions.get(from as usize).map(|at| *at as usize) else {
        return;
    };
    if let Some(&node) = nodes.get(at) {
        place(nodes, positions, at, Node { slot: to, ..node });
    }
}

fn place(nodes: &mut [Node], positions: &mut [u32], at: usize, node: Node) {
    if let Some(to) = nodes.get_mut(at) {
        *to = node;
    }
    if let Some(position) = positions.get_mut(node.slot as usize) {
        *position = at as u32;
    }
}

#[inline]
fn sift_down(nodes: &mut [Node], positions: &mut [u32], mut at: usize) {
    let Some(&node) = nodes.get(at) else { return };
    loop {
        let left = at * 2 + 1;
        let Some(&one) = nodes.get(left) else { break };
        let (child, least) = match nodes.get(left + 1) {
            Some(&other) if other.weight < one.weight => (left + 1, other),
            _ => (left, one),
        };
        if node.weight <= least.weight {
            break;
        }
        place(nodes, positions, at, least);
        at = child;
    }
    place(nodes, positions, at, node);
}

fn sift_up(nodes: &mut [Node], positions: &mut [u32], mut at: usize) {
    let Some(&node) = nodes.get(at) else { return };
    while let Some(parent) = at.checked_sub(1).map(|above| above / 2) {
        let Some(&above) = nodes.get(parent) else {
            break;
        };
        if above.weight <= node.weight {
            break;
        }
        place(nodes, positions, at, above);
        at = parent;
    }
    place(nodes, positions, at, node);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn the_root_is_the_least(
            ops in prop::collection::vec((0u32..4, 0u32..20, 0u32..50), 0..200),
        ) {
            let mut nodes = [Node { weight: 0.0, slot: 0, reserved: 0 }; 20];
            let mut positions = [0u32; 20];
            let mut model: HashMap<u32, f64> = HashMap::new();
            for (op, slot, weight) in ops {
                let (weight, len) = (f64::from(weight), model.len());
                match (op, model.contains_key(&slot)) {
                    (0 | 1, false) => {
                        push(&mut nodes[..=len], &mut positions, slot, weight);
                        model.insert(slot, weight);
                    }
                    (2, true) => {
                        remove(&mut nodes[..len], &mut positions, slot);
                        model.remove(&slot);
                    }
                    (3, true) if !model.contains_key(&(19 - slot)) => {
                        relabel(&mut nodes[..len], &mut positions, slot, 19 - slot);
                        let weight = model.remove(&slot).expect("present");
                        model.insert(19 - slot, weight);
                    }
                    (_, true) => {
                        raise(&mut nodes[..len], &mut positions, slot, weight);
                        *model.get_mut(&slot).expect("present") += weight;
                    }
                    _ => {}
                }
                let live = &nodes[..model.len()];
                for (slot, weight) in &model {
                    prop_assert_eq!(weight_of(live, &positions, *slot), *weight);
                }
                let least = model.values().copied().min_by(f64::total_cmp);
                prop_assert_eq!(live.first().map(|node| node.weight), least);
            }
        }
    }
}
