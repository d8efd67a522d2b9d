//! The value to which the conditions of a plan pin a column: `column = constant`, `column = parameter`.

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
    rti: pg_sys::Index,
    attno: i16,
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

/// The value to which the conditions on a scanned relation pin a column, if one of them does.
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
        let look = |quals: *const pg_sys::List| value_in(quals, column, params);
        let scans = || (*plan.cast::<pg_sys::Scan>()).scanrelid == column.rti;
        match (*plan).type_ {
            pg_sys::NodeTag::T_SeqScan
            | pg_sys::NodeTag::T_TidScan
            | pg_sys::NodeTag::T_TidRangeScan
                if scans() =>
            {
                return look((*plan).qual);
            }
            pg_sys::NodeTag::T_IndexScan if scans() => {
                return look((*plan.cast::<pg_sys::IndexScan>()).indexqualorig)
                    .or_else(|| look((*plan).qual));
            }
            pg_sys::NodeTag::T_BitmapHeapScan if scans() => {
                return look((*plan.cast::<pg_sys::BitmapHeapScan>()).bitmapqualorig)
                    .or_else(|| look((*plan).qual));
            }
            pg_sys::NodeTag::T_Append => {
                let children = (*plan.cast::<pg_sys::Append>()).appendplans;
                for i in 0..list::length(children) {
                    let child = list::nth::<pg_sys::Plan>(children, i);
                    if let Some(found) = value(child, column, params) {
                        return Some(found);
                    }
                }
            }
            _ => {}
        }
        value((*plan).lefttree, column, params).or_else(|| value((*plan).righttree, column, params))
    }
}

unsafe fn value_in(
    quals: *const pg_sys::List,
    column: &Column,
    params: pg_sys::ParamListInfo,
) -> Option<pg_sys::Datum> {
    // SAFETY: a list of expressions; nodes are tagged.
    unsafe {
        for i in 0..list::length(quals) {
            let clause = list::nth::<pg_sys::OpExpr>(quals, i);
            if (*clause).xpr.type_ == pg_sys::NodeTag::T_OpExpr
                && (*clause).opno == column.equality
                && (*clause).inputcollid == column.collation
                && let Some(other) = compared_with(&*clause, column.rti, column.attno)
                && let Some(value) = value_of(other, params)
            {
                return Some(value);
            }
        }
        None
    }
}

/// What an operator compares a column with, if it compares it with something.
///
/// # Safety
/// An expression of a plan, or of a query that is being planned.
pub unsafe fn compared_with(
    clause: &pg_sys::OpExpr,
    rti: pg_sys::Index,
    attno: i16,
) -> Option<*mut pg_sys::Node> {
    // SAFETY: arguments are tagged nodes.
    unsafe {
        if list::length(clause.args) != 2 {
            return None;
        }
        let sides = [0, 1].map(|n| list::nth::<pg_sys::Node>(clause.args, n));
        [(sides[0], sides[1]), (sides[1], sides[0])]
            .into_iter()
            .find(|(side, _)| {
                let side = bare(*side);
                if (*side).type_ != pg_sys::NodeTag::T_Var {
                    return false;
                }
                let var = &*side.cast::<pg_sys::Var>();
                var.varno as pg_sys::Index == rti && var.varattno == attno && var.varlevelsup == 0
            })
            .map(|(_, other)| other)
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

/// A constant, or a parameter of the statement.
unsafe fn value_of(
    node: *mut pg_sys::Node,
    params: pg_sys::ParamListInfo,
) -> Option<pg_sys::Datum> {
    // SAFETY: nodes are tagged; parameters count from 1.
    unsafe {
        let node = bare(node);
        match (*node).type_ {
            pg_sys::NodeTag::T_Const => {
                let constant = &*node.cast::<pg_sys::Const>();
                (!constant.constisnull).then_some(constant.constvalue)
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
                (!value.isnull && value.ptype == param.paramtype).then_some(value.value)
            }
            _ => None,
        }
    }
}
