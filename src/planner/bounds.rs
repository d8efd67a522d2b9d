//! The bound of one leaf of a LIST-partitioned wrapper, and the expression that checks it.

use crate::pg::list;
use crate::pg::partition::{Comparison, list_key};
use crate::pg::pins;
use crate::pg::raw;
use pgrx::prelude::*;

/// pg_inherits, which pgrx's bindings leave out: OIDs, columns and layout are those of `pg_inherits.h`,
/// fixed since 14.
mod inherits {
    use pgrx::pg_sys::Oid;
    pub const RELATION: Oid = oid_of(2611);
    pub const RELID_SEQNO_INDEX: Oid = oid_of(2680);
    pub const PARENT_INDEX: Oid = oid_of(2187);
    pub const INHRELID: i16 = 1;
    pub const INHPARENT: i16 = 2;

    #[repr(C)]
    pub struct Form {
        pub inhrelid: Oid,
        pub inhparent: Oid,
    }

    const fn oid_of(value: u32) -> Oid {
        // SAFETY: an Oid is any u32.
        unsafe { std::mem::transmute::<u32, Oid>(value) }
    }
}

/// What a leaf owns.
pub enum Bound {
    /// Everything but these values, which siblings own.
    Default { others: Vec<pg_sys::Datum> },
    /// These values. Whether NULL is among them does not matter: entity columns are NOT NULL
    /// (`shadow_manage` sees to it), which keeps the filter an expression that an index can serve.
    Values { datums: Vec<pg_sys::Datum> },
}

pub enum Qual {
    Always,
    Never,
    If(*mut pg_sys::Expr),
}

impl Bound {
    /// Whether it owns a value, which has the key's type.
    pub unsafe fn owns(&self, comparison: &Comparison, value: pg_sys::Datum) -> bool {
        // SAFETY: values of the key's type.
        unsafe {
            match self {
                Bound::Default { others } => !others.iter().any(|v| equal(comparison, *v, value)),
                Bound::Values { datums } => datums.iter().any(|v| equal(comparison, *v, value)),
            }
        }
    }

    pub fn owns_nothing(&self) -> bool {
        matches!(self, Bound::Values { datums } if datums.is_empty())
    }

    /// What this one and another own together.
    pub unsafe fn with(self, other: Bound, comparison: &Comparison) -> Bound {
        let without = |mut all: Vec<pg_sys::Datum>, some: &[pg_sys::Datum]| {
            // SAFETY: values of the key's type.
            all.retain(|v| unsafe { !some.iter().any(|w| equal(comparison, *v, *w)) });
            all
        };
        match (self, other) {
            (Bound::Values { mut datums }, Bound::Values { datums: more }) => {
                datums.extend(more);
                Bound::Values { datums }
            }
            (Bound::Default { others }, Bound::Values { datums })
            | (Bound::Values { datums }, Bound::Default { others }) => Bound::Default {
                others: without(others, &datums),
            },
            (mine @ Bound::Default { .. }, Bound::Default { .. }) => mine,
        }
    }

    /// Takes a value away from a bound that lists its own.
    pub unsafe fn forget(&mut self, comparison: &Comparison, value: pg_sys::Datum) {
        if let Bound::Values { datums } = self {
            // SAFETY: values of the key's type.
            datums.retain(|v| unsafe { !equal(comparison, *v, value) });
        }
    }
}

unsafe fn equal(comparison: &Comparison, a: pg_sys::Datum, b: pg_sys::Datum) -> bool {
    // SAFETY: the equality function of the key's own operator family, on values of its type.
    unsafe {
        let operator = pg_sys::get_opfamily_member(
            comparison.opfamily,
            comparison.opcintype,
            comparison.opcintype,
            pg_sys::BTEqualStrategyNumber as i16,
        );
        let function = pg_sys::get_opcode(operator);
        pg_sys::OidFunctionCall2Coll(function, comparison.collation, a, b).value() != 0
    }
}

/// The value that the clauses of a query pin the key to, if one of them is `key = constant`.
///
/// Such a clause is tested on every row anyway. Where the bound owns the value it says as much as the
/// filter would, and where it does not, no row can pass both.
pub unsafe fn pinned_value(
    clauses: *const pg_sys::List,
    key: &pg_sys::Var,
    comparison: &Comparison,
) -> Option<pg_sys::Datum> {
    // SAFETY: a list of RestrictInfo; nodes are tagged, and each cast follows its tag.
    unsafe {
        for i in 0..list::length(clauses) {
            let clause = (*list::nth::<pg_sys::RestrictInfo>(clauses, i)).clause;
            if (*clause).type_ != pg_sys::NodeTag::T_OpExpr {
                continue;
            }
            let operation = &*clause.cast::<pg_sys::OpExpr>();
            if operation.inputcollid != comparison.collation
                || pg_sys::get_op_opfamily_strategy(operation.opno, comparison.opfamily)
                    != pg_sys::BTEqualStrategyNumber as i32
            {
                continue;
            }
            let rti = key.varno as pg_sys::Index;
            if let Some(other) = pins::compared_with(operation, rti, key.varattno)
                && (*other).type_ == pg_sys::NodeTag::T_Const
            {
                let constant = &*other.cast::<pg_sys::Const>();
                if !constant.constisnull && constant.consttype == comparison.opcintype {
                    return Some(constant.constvalue);
                }
            }
        }
        None
    }
}

/// The bound of `relid` in a pinned descriptor, or `None` when the parent is not LIST-partitioned.
pub unsafe fn of_descriptor(
    descriptor: pg_sys::PartitionDesc,
    relid: pg_sys::Oid,
) -> Option<Bound> {
    // SAFETY: a descriptor pinned by the plan; its arrays have the lengths that it states.
    unsafe {
        let descriptor = &*descriptor;
        if descriptor.nparts == 0 || descriptor.boundinfo.is_null() {
            return None;
        }
        let info = &*descriptor.boundinfo;
        if info.strategy as u8 != b'l' {
            return None;
        }
        let oids = std::slice::from_raw_parts(descriptor.oids, descriptor.nparts as usize);
        let me = oids.iter().position(|oid| *oid == relid)? as i32;
        let is_default = info.default_index == me;
        let datums = (0..info.ndatums as usize)
            .filter(|i| is_default || *info.indexes.add(*i) == me)
            .map(|i| **info.datums.add(i))
            .collect();
        Some(if is_default {
            Bound::Default { others: datums }
        } else {
            Bound::Values { datums }
        })
    }
}

/// Bound, comparison and key column of a leaf that a query names directly.
///
/// Under READ COMMITTED this is the present state of the catalogs. A REPEATABLE READ transaction gets
/// the bounds of its own snapshot: pg_dump reads the leaves one by one, under the bounds that it has
/// read before, and a swap in between must not make it miss an entity or dump it twice. Both sides
/// hold the entity's rows in every snapshot, so either answer is exact as long as it is one answer.
pub unsafe fn of_snapshot(relid: pg_sys::Oid) -> Option<(Bound, Comparison, i16)> {
    // SAFETY: catalog scans as PostgreSQL's own code does them; a parent is locked before it is opened.
    unsafe {
        let snapshot = if pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32
            && pg_sys::ActiveSnapshotSet()
        {
            pg_sys::GetActiveSnapshot()
        } else {
            std::ptr::null_mut()
        };
        let parent = scan_inherits(inherits::INHRELID, relid, snapshot)
            .into_iter()
            .next()
            .map(|(_, parent)| parent)?;
        let siblings = scan_inherits(inherits::INHPARENT, parent, snapshot);

        pg_sys::LockRelationOid(parent, pg_sys::AccessShareLock as i32);
        let table = pg_sys::RelationIdGetRelation(parent);
        if table.is_null() {
            return None;
        }
        let key = list_key(table);
        pg_sys::RelationClose(table);
        let key = key?;
        let column = pg_sys::get_attname(parent, key.attno, true);
        if column.is_null() {
            return None;
        }
        let attno = pg_sys::get_attnum(relid, column);

        let mut own = None;
        let mut others = Vec::new();
        for (child, _) in siblings {
            let Some(spec) = bound_spec(child, snapshot) else {
                continue;
            };
            if (*spec).strategy as u8 != b'l' {
                return None;
            }
            let (datums, _) = list_values(spec);
            if child == relid {
                own = Some(((*spec).is_default, datums));
            } else {
                others.extend(datums);
            }
        }
        let (is_default, datums) = own?;
        let bound = if is_default {
            Bound::Default { others }
        } else {
            Bound::Values { datums }
        };
        Some((bound, key.comparison, attno))
    }
}

/// Rows (child, parent) of pg_inherits whose column `attno` equals `oid`.
unsafe fn scan_inherits(
    attno: i16,
    oid: pg_sys::Oid,
    snapshot: pg_sys::Snapshot,
) -> Vec<(pg_sys::Oid, pg_sys::Oid)> {
    // SAFETY: an ordinary catalog scan; tuples are read before the scan goes on.
    unsafe {
        let index = if attno == inherits::INHRELID {
            inherits::RELID_SEQNO_INDEX
        } else {
            inherits::PARENT_INDEX
        };
        let mut rows = Vec::new();
        scan_catalog(
            inherits::RELATION,
            index,
            attno,
            oid,
            snapshot,
            |tuple, _| {
                let form = &*(pg_sys::GETSTRUCT(tuple) as *const inherits::Form);
                rows.push((form.inhrelid, form.inhparent));
            },
        );
        rows
    }
}

/// The bound of a partition as the snapshot has it.
unsafe fn bound_spec(
    child: pg_sys::Oid,
    snapshot: pg_sys::Snapshot,
) -> Option<*mut pg_sys::PartitionBoundSpec> {
    // SAFETY: as above; relpartbound is a node tree that `stringToNode` reads.
    unsafe {
        let mut spec = None;
        scan_catalog(
            pg_sys::RelationRelationId,
            pg_sys::ClassOidIndexId.into(),
            pg_sys::Anum_pg_class_oid as i16,
            child,
            snapshot,
            |tuple, descriptor| {
                let mut null = false;
                let datum = pg_sys::heap_getattr(
                    tuple,
                    pg_sys::Anum_pg_class_relpartbound as i32,
                    descriptor,
                    &mut null,
                );
                if !null {
                    let text = pg_sys::text_to_cstring(datum.cast_mut_ptr());
                    spec = Some(pg_sys::stringToNode(text) as *mut pg_sys::PartitionBoundSpec);
                }
            },
        );
        spec
    }
}

unsafe fn scan_catalog(
    catalog: pg_sys::Oid,
    index: pg_sys::Oid,
    attno: i16,
    oid: pg_sys::Oid,
    snapshot: pg_sys::Snapshot,
    mut row: impl FnMut(pg_sys::HeapTuple, pg_sys::TupleDesc),
) {
    // SAFETY: `systable_beginscan` with one OID key; a null snapshot means the latest catalog state.
    unsafe {
        let relation = pg_sys::table_open(catalog, pg_sys::AccessShareLock as i32);
        let mut key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyInit(
            &mut key,
            attno,
            pg_sys::BTEqualStrategyNumber as u16,
            pg_sys::F_OIDEQ.into(),
            oid.into(),
        );
        let scan = pg_sys::systable_beginscan(relation, index, true, snapshot, 1, &mut key);
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            row(tuple, (*relation).rd_att);
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
    }
}

/// Values of a LIST bound, and whether NULL is among them.
pub unsafe fn list_values(spec: *mut pg_sys::PartitionBoundSpec) -> (Vec<pg_sys::Datum>, bool) {
    // SAFETY: `listdatums` is a list of Const nodes, or NIL.
    unsafe {
        let values = (*spec).listdatums;
        let mut datums = Vec::new();
        let mut null = false;
        for i in 0..list::length(values) {
            let value = &*list::nth::<pg_sys::Const>(values, i);
            if value.constisnull {
                null = true;
            } else {
                datums.push(value.constvalue);
            }
        }
        (datums, null)
    }
}

/// The expression that holds of exactly the rows that the bound owns.
pub unsafe fn qual(bound: &Bound, comparison: &Comparison, column: *mut pg_sys::Var) -> Qual {
    // SAFETY: fresh nodes in the planner's memory context; `column` is copied.
    unsafe {
        match bound {
            Bound::Default { others } if others.is_empty() => Qual::Always,
            Bound::Default { others } => Qual::If(membership(others, comparison, column, false)),
            // NULL is what a shadow that owns nothing holds its place with: no row has it, since the
            // key column of a managed table is NOT NULL.
            Bound::Values { .. } if bound.owns_nothing() => Qual::Never,
            Bound::Values { datums } => Qual::If(membership(datums, comparison, column, true)),
        }
    }
}

/// `column = ANY (datums)` or `column <> ALL (datums)`; a plain comparison where there is one value.
unsafe fn membership(
    datums: &[pg_sys::Datum],
    comparison: &Comparison,
    column: *mut pg_sys::Var,
    inside: bool,
) -> *mut pg_sys::Expr {
    // SAFETY: fresh nodes; operators come from the partition key's own operator family, so they exist,
    // and values have the key's type.
    unsafe {
        let vartype = (*column).vartype;
        // A polymorphic operator class (enums) compares values of the column's own type.
        let element = if pg_sys::get_typtype(comparison.opcintype) == b'p' as std::ffi::c_char {
            pg_sys::getBaseType(vartype)
        } else {
            comparison.opcintype
        };
        let mut left: *mut pg_sys::Expr = pg_sys::copyObjectImpl(column.cast()).cast();
        if vartype != element {
            left = pg_sys::makeRelabelType(
                left,
                element,
                -1,
                comparison.collation,
                pg_sys::CoercionForm::COERCE_EXPLICIT_CAST,
            )
            .cast();
        }
        let equal = pg_sys::get_opfamily_member(
            comparison.opfamily,
            comparison.opcintype,
            comparison.opcintype,
            pg_sys::BTEqualStrategyNumber as i16,
        );
        let operator = if inside {
            equal
        } else {
            pg_sys::get_negator(equal)
        };
        let array_type = pg_sys::get_array_type(element);
        if datums.len() == 1 {
            let value = pg_sys::makeConst(
                element,
                -1,
                comparison.collation,
                i32::from(comparison.typlen),
                raw::missing::datumCopy(
                    datums[0],
                    comparison.typbyval,
                    i32::from(comparison.typlen),
                ),
                false,
                comparison.typbyval,
            );
            return pg_sys::make_opclause(
                operator,
                pg_sys::BOOLOID,
                false,
                left,
                value.cast(),
                pg_sys::InvalidOid,
                comparison.collation,
            );
        }
        let mut align = 0;
        let mut len = 0;
        let mut byval = false;
        pg_sys::get_typlenbyvalalign(element, &mut len, &mut byval, &mut align);
        let mut values = datums.to_vec();
        let array = pg_sys::construct_array(
            values.as_mut_ptr(),
            values.len() as i32,
            element,
            i32::from(len),
            byval,
            align,
        );
        let array = pg_sys::makeConst(
            array_type,
            -1,
            comparison.collation,
            -1,
            pg_sys::Datum::from(array),
            false,
            false,
        );
        let test = pg_sys::palloc0(size_of::<pg_sys::ScalarArrayOpExpr>())
            as *mut pg_sys::ScalarArrayOpExpr;
        (*test).xpr.type_ = pg_sys::NodeTag::T_ScalarArrayOpExpr;
        (*test).opno = operator;
        (*test).opfuncid = pg_sys::get_opcode(operator);
        (*test).useOr = inside;
        (*test).inputcollid = comparison.collation;
        (*test).args = pg_sys::lappend(
            pg_sys::lappend(std::ptr::null_mut(), left.cast()),
            array.cast(),
        );
        (*test).location = -1;
        test.cast()
    }
}

/// Collation of a column.
pub unsafe fn column_collation(relation: pg_sys::Relation, attno: i16) -> pg_sys::Oid {
    // SAFETY: an open relation and one of its attribute numbers.
    unsafe {
        let mut typid = pg_sys::InvalidOid;
        let mut typmod = 0;
        let mut collation = pg_sys::InvalidOid;
        pg_sys::get_atttypetypmodcoll(
            (*relation).rd_id,
            attno,
            &mut typid,
            &mut typmod,
            &mut collation,
        );
        collation
    }
}
