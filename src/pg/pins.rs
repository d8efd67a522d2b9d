//! The values to which the conditions of a plan pin a column: `column = constant`, `column = parameter`,
//! `column IN (constants)`.

use crate::pg::list;
use pgrx::pg_sys;

/// PostgreSQL functions as they are, unguarded: callers are hooks that hold nothing with a destructor.
mod c {
    use pgrx::pg_sys::*;
    unsafe extern "C-unwind" {
        pub fn lookup_type_cache(typid: Oid, flags: i32) -> *mut TypeCacheEntry;
        pub fn getBaseType(typid: Oid) -> Oid;
    }
}

/// The column that is looked for, as one scan of a plan sees it.
#[derive(Clone, Copy)]
pub struct Column {
    pub rti: pg_sys::Index,
    pub attno: i16,
    /// The default equality of the column's type, and the column's collation: only conditions with these
    /// say what the column's values are.
    equality: pg_sys::Oid,
    collation: pg_sys::Oid,
}

impl Column {
    /// # Safety
    /// The descriptor has that column.
    pub unsafe fn new(rti: pg_sys::Index, attno: i16, descriptor: pg_sys::TupleDesc) -> Column {
        // SAFETY: type cache entries are permanent.
        unsafe {
            let attribute = attribute_of(descriptor, attno);
            let entry = c::lookup_type_cache(
                c::getBaseType((*attribute).atttypid),
                pg_sys::TYPECACHE_EQ_OPR as i32,
            );
            Column {
                rti,
                attno,
                equality: (*entry).eq_opr,
                collation: (*attribute).attcollation,
            }
        }
    }

    /// The same column among those of an index, whose target list is given.
    unsafe fn in_index(&self, targets: *const pg_sys::List) -> Option<Column> {
        // SAFETY: a list of target entries, the n-th of which is the index's n-th column.
        unsafe {
            for i in 0..list::length(targets) {
                let target = list::nth::<pg_sys::TargetEntry>(targets, i);
                if self.is((*target).expr.cast()) {
                    return Some(Column {
                        rti: pg_sys::INDEX_VAR as pg_sys::Index,
                        attno: (i + 1) as i16,
                        ..*self
                    });
                }
            }
            None
        }
    }

    /// Whether an expression is this column.
    unsafe fn is(&self, node: *mut pg_sys::Node) -> bool {
        // SAFETY: a tagged node.
        unsafe {
            let node = bare(node);
            if (*node).type_ != pg_sys::NodeTag::T_Var {
                return false;
            }
            let var = &*node.cast::<pg_sys::Var>();
            var.varno as pg_sys::Index == self.rti && var.varattno == self.attno
        }
    }

    unsafe fn is_compared(
        &self,
        operator: pg_sys::Oid,
        collation: pg_sys::Oid,
        args: *const pg_sys::List,
    ) -> bool {
        // SAFETY: the list of an operator's arguments.
        operator == self.equality
            && collation == self.collation
            && unsafe { list::length(args) } == 2
    }
}

unsafe fn attribute_of(
    descriptor: pg_sys::TupleDesc,
    attno: i16,
) -> *const pg_sys::FormData_pg_attribute {
    // SAFETY: an attribute number of that descriptor.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        return (*descriptor).attrs.as_ptr().add(attno as usize - 1);
        #[cfg(feature = "pg18")]
        pg_sys::TupleDescAttr(descriptor, i32::from(attno) - 1)
    }
}

/// The one value to which the conditions on a scanned relation pin a column.
///
/// # Safety
/// The plan is being executed with these parameters.
pub unsafe fn value(
    plan: *const pg_sys::Plan,
    column: &Column,
    params: pg_sys::ParamListInfo,
) -> Option<pg_sys::Datum> {
    // SAFETY: plan nodes are tagged; each cast follows its tag.
    unsafe {
        if plan.is_null() {
            return None;
        }
        if is_scan(plan) {
            if (*plan.cast::<pg_sys::Scan>()).scanrelid != column.rti {
                return None;
            }
            let mut only = None;
            let mut count = 0;
            values(plan, column, params, |found| {
                only = Some(found);
                count += 1;
            });
            return if count == 1 { only } else { None };
        }
        if (*plan).type_ == pg_sys::NodeTag::T_Append {
            let children = (*plan.cast::<pg_sys::Append>()).appendplans;
            for i in 0..list::length(children) {
                let child = list::nth::<pg_sys::Plan>(children, i);
                if let Some(found) = value(child, column, params) {
                    return Some(found);
                }
            }
        }
        value((*plan).lefttree, column, params).or_else(|| value((*plan).righttree, column, params))
    }
}

/// Whether a plan node reads rows of one relation that its conditions then choose from.
///
/// # Safety
/// A plan node.
pub unsafe fn is_scan(plan: *const pg_sys::Plan) -> bool {
    // SAFETY: nodes are tagged.
    let tag = unsafe { (*plan).type_ };
    matches!(
        tag,
        pg_sys::NodeTag::T_SeqScan
            | pg_sys::NodeTag::T_SampleScan
            | pg_sys::NodeTag::T_IndexScan
            | pg_sys::NodeTag::T_IndexOnlyScan
            | pg_sys::NodeTag::T_BitmapHeapScan
            | pg_sys::NodeTag::T_TidScan
            | pg_sys::NodeTag::T_TidRangeScan
    )
}

/// All values that one condition of a scan allows: one for `=`, several for `IN`. None where no
/// condition says.
///
/// # Safety
/// A scan of the column's relation, which is being executed with these parameters.
pub unsafe fn values(
    scan: *const pg_sys::Plan,
    column: &Column,
    params: pg_sys::ParamListInfo,
    mut each: impl FnMut(pg_sys::Datum),
) {
    // SAFETY: each cast follows the tag.
    unsafe {
        // Conditions that an index answers are kept in their original form; in an index-only scan they
        // are expressed in columns of the index.
        let of_index = match (*scan).type_ {
            pg_sys::NodeTag::T_IndexScan => (*scan.cast::<pg_sys::IndexScan>()).indexqualorig,
            pg_sys::NodeTag::T_BitmapHeapScan => {
                (*scan.cast::<pg_sys::BitmapHeapScan>()).bitmapqualorig
            }
            pg_sys::NodeTag::T_IndexOnlyScan => {
                let scan = scan.cast::<pg_sys::IndexOnlyScan>();
                let Some(column) = column.in_index((*scan).indextlist) else {
                    return;
                };
                for quals in [
                    (*scan).recheckqual,
                    (*scan).indexqual,
                    (*scan).scan.plan.qual,
                ] {
                    if values_in(quals, &column, params, &mut each) {
                        return;
                    }
                }
                return;
            }
            _ => std::ptr::null_mut(),
        };
        for quals in [of_index, (*scan).qual] {
            if values_in(quals, column, params, &mut each) {
                return;
            }
        }
    }
}

/// Whether one of the conditions says what the column is.
unsafe fn values_in(
    quals: *const pg_sys::List,
    column: &Column,
    params: pg_sys::ParamListInfo,
    each: &mut impl FnMut(pg_sys::Datum),
) -> bool {
    // SAFETY: a list of expressions; nodes are tagged.
    unsafe {
        for i in 0..list::length(quals) {
            let clause = list::nth::<pg_sys::Node>(quals, i);
            match (*clause).type_ {
                pg_sys::NodeTag::T_OpExpr => {
                    let clause = &*clause.cast::<pg_sys::OpExpr>();
                    if !column.is_compared(clause.opno, clause.inputcollid, clause.args) {
                        continue;
                    }
                    let sides = [0, 1].map(|n| list::nth::<pg_sys::Node>(clause.args, n));
                    for (side, other) in [(sides[0], sides[1]), (sides[1], sides[0])] {
                        if column.is(side)
                            && let Some((value, _)) = value_of(other, params)
                        {
                            each(value);
                            return true;
                        }
                    }
                }
                pg_sys::NodeTag::T_ScalarArrayOpExpr => {
                    let clause = &*clause.cast::<pg_sys::ScalarArrayOpExpr>();
                    if clause.useOr
                        && column.is_compared(clause.opno, clause.inputcollid, clause.args)
                        && column.is(list::nth(clause.args, 0))
                        && let Some((array, typid)) = value_of(list::nth(clause.args, 1), params)
                    {
                        elements(array, typid, each);
                        return true;
                    }
                }
                _ => {}
            }
        }
        false
    }
}

/// Most elements of an IN list that are looked at.
const ELEMENTS_MAX: i32 = 64;

unsafe fn elements(array: pg_sys::Datum, typid: pg_sys::Oid, each: &mut impl FnMut(pg_sys::Datum)) {
    // SAFETY: an array of that type; its elements are read before anything is freed.
    unsafe {
        let element = pg_sys::get_element_type(typid);
        if element == pg_sys::InvalidOid {
            return;
        }
        let (mut length, mut by_value, mut align) = (0, false, 0);
        pg_sys::get_typlenbyvalalign(element, &mut length, &mut by_value, &mut align);
        let mut values = std::ptr::null_mut();
        let mut nulls = std::ptr::null_mut();
        let mut count = 0;
        let array = pg_sys::pg_detoast_datum(array.cast_mut_ptr());
        pg_sys::deconstruct_array(
            array.cast(),
            element,
            i32::from(length),
            by_value,
            align,
            &mut values,
            &mut nulls,
            &mut count,
        );
        for i in 0..count.min(ELEMENTS_MAX) as usize {
            if !*nulls.add(i) {
                each(*values.add(i));
            }
        }
    }
}

unsafe fn bare(mut node: *mut pg_sys::Node) -> *mut pg_sys::Node {
    // SAFETY: a tagged node.
    unsafe {
        while (*node).type_ == pg_sys::NodeTag::T_RelabelType {
            node = (*node.cast::<pg_sys::RelabelType>()).arg.cast();
        }
        node
    }
}

/// A constant, or a parameter of the statement, and its type.
unsafe fn value_of(
    node: *mut pg_sys::Node,
    params: pg_sys::ParamListInfo,
) -> Option<(pg_sys::Datum, pg_sys::Oid)> {
    // SAFETY: nodes are tagged; parameters count from 1.
    unsafe {
        let node = bare(node);
        match (*node).type_ {
            pg_sys::NodeTag::T_Const => {
                let constant = &*node.cast::<pg_sys::Const>();
                (!constant.constisnull).then_some((constant.constvalue, constant.consttype))
            }
            pg_sys::NodeTag::T_Param => {
                let param = &*node.cast::<pg_sys::Param>();
                if param.paramkind != pg_sys::ParamKind::PARAM_EXTERN
                    || params.is_null()
                    || param.paramid <= 0
                    || param.paramid > (*params).numParams
                {
                    return None;
                }
                let mut made = pg_sys::ParamExternData::default();
                let value = match (*params).paramFetch {
                    // PL/pgSQL makes its values when they are asked for.
                    Some(fetch) => &*fetch(params, param.paramid, true, &mut made),
                    None => &*(*params).params.as_ptr().add(param.paramid as usize - 1),
                };
                (!value.isnull && value.ptype == param.paramtype)
                    .then_some((value.value, value.ptype))
            }
            _ => None,
        }
    }
}
