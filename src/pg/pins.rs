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
        pub fn get_op_opfamily_strategy(operator: Oid, family: Oid) -> i32;
        pub fn get_element_type(typid: Oid) -> Oid;
        pub fn get_typlenbyvalalign(
            typid: Oid,
            length: *mut i16,
            by_value: *mut bool,
            align: *mut std::ffi::c_char,
        );
        pub fn pg_detoast_datum(value: *mut varlena) -> *mut varlena;
        pub fn deconstruct_array(
            array: *mut ArrayType,
            element: Oid,
            length: i32,
            by_value: bool,
            align: std::ffi::c_char,
            values: *mut *mut Datum,
            nulls: *mut *mut bool,
            count: *mut i32,
        );
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
    /// The operator family of integers, if it is one: those of all widths are compared with each other, and
    /// look the same as datums.
    integers: pg_sys::Oid,
    is_boolean: bool,
}

impl Column {
    /// # Safety
    /// The descriptor has that column.
    pub unsafe fn new(rti: pg_sys::Index, attno: i16, descriptor: pg_sys::TupleDesc) -> Column {
        // SAFETY: type cache entries are permanent.
        unsafe {
            let attribute = attribute_of(descriptor, attno);
            let typid = c::getBaseType((*attribute).atttypid);
            let entry = c::lookup_type_cache(
                typid,
                (pg_sys::TYPECACHE_EQ_OPR | pg_sys::TYPECACHE_BTREE_OPFAMILY) as i32,
            );
            Column {
                rti,
                attno,
                equality: (*entry).eq_opr,
                collation: (*attribute).attcollation,
                integers: if is_integer(typid) {
                    (*entry).btree_opf
                } else {
                    pg_sys::InvalidOid
                },
                is_boolean: typid == pg_sys::BOOLOID,
            }
        }
    }

    /// Whether what a scan gives as `var` is the column.
    ///
    /// # Safety
    /// A scan, and an expression of its target list.
    pub unsafe fn is_read_by(&self, scan: *const pg_sys::Plan, var: &pg_sys::Var) -> bool {
        // SAFETY: the cast follows the tag.
        unsafe {
            if (*scan.cast::<pg_sys::Scan>()).scanrelid != self.rti {
                return false;
            }
            let column = match (*scan).type_ {
                pg_sys::NodeTag::T_IndexOnlyScan => {
                    self.in_index((*scan.cast::<pg_sys::IndexOnlyScan>()).indextlist)
                }
                _ => Some(*self),
            };
            column.is_some_and(|c| var.varno as pg_sys::Index == c.rti && var.varattno == c.attno)
        }
    }

    /// Whether an operator compares the column for equality with values of its own kind.
    ///
    /// # Safety
    /// Looks into the catalog cache: in a transaction.
    pub unsafe fn is_equality(&self, operator: pg_sys::Oid, collation: pg_sys::Oid) -> bool {
        if collation != self.collation {
            return false;
        }
        // SAFETY: looks into the catalog cache.
        operator == self.equality
            || self.integers != pg_sys::InvalidOid
                && unsafe { c::get_op_opfamily_strategy(operator, self.integers) }
                    == pg_sys::BTEqualStrategyNumber as i32
    }

    /// The same column among those of an index, whose target list is given.
    unsafe fn in_index(&self, targets: *const pg_sys::List) -> Option<Column> {
        // SAFETY: a list of target entries, the n-th of which is the index's n-th column.
        unsafe {
            (0..list::length(targets)).find_map(|i| {
                let target = list::nth::<pg_sys::TargetEntry>(targets, i);
                is_column((*target).expr.cast(), self.rti, self.attno).then_some(Column {
                    rti: pg_sys::INDEX_VAR as pg_sys::Index,
                    attno: (i + 1) as i16,
                    ..*self
                })
            })
        }
    }
}

/// A column of a descriptor.
///
/// # Safety
/// The descriptor has that column.
pub unsafe fn attribute_of(
    descriptor: pg_sys::TupleDesc,
    attno: i16,
) -> *const pg_sys::FormData_pg_attribute {
    // SAFETY: an attribute number of that descriptor.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        return (*descriptor).attrs.as_ptr().add(attno as usize - 1);
        // The array lies behind that of the compact ones (`TupleDescAttrAddress` of access/tupdesc.h).
        #[cfg(feature = "pg18")]
        (*descriptor)
            .compact_attrs
            .as_ptr()
            .add((*descriptor).natts as usize)
            .cast::<pg_sys::FormData_pg_attribute>()
            .add(attno as usize - 1)
    }
}

/// The one value to which the conditions on a scanned relation pin a column, if one of them does.
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

/// Whether a plan node reads rows of one relation, of which its conditions then choose.
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

/// The number of the executor's parameter to which a condition of a scan pins a column: a value that only
/// the execution of the plan will tell.
///
/// # Safety
/// A scan of the column's relation.
pub unsafe fn exec_param(scan: *const pg_sys::Plan, column: &Column) -> Option<i32> {
    // SAFETY: lists of expressions; nodes are tagged.
    unsafe {
        let (column, lists) = conditions(scan, column)?;
        for quals in lists {
            for i in 0..list::length(quals) {
                let clause = list::nth::<pg_sys::OpExpr>(quals, i);
                if (*clause).xpr.type_ == pg_sys::NodeTag::T_OpExpr
                    && column.is_equality((*clause).opno, (*clause).inputcollid)
                    && let Some(other) = compared_with(&*clause, column.rti, column.attno)
                {
                    let other = bare(other);
                    let param = &*other.cast::<pg_sys::Param>();
                    if (*other).type_ == pg_sys::NodeTag::T_Param
                        && param.paramkind == pg_sys::ParamKind::PARAM_EXEC
                    {
                        return Some(param.paramid);
                    }
                }
            }
        }
        None
    }
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
    // SAFETY: as required.
    unsafe {
        let Some((column, lists)) = conditions(scan, column) else {
            return;
        };
        for quals in lists {
            if values_in(quals, &column, params, &mut each) {
                return;
            }
        }
    }
}

/// The conditions of a scan, and the column as they see it. None if they cannot see it.
unsafe fn conditions(
    scan: *const pg_sys::Plan,
    column: &Column,
) -> Option<(Column, [*const pg_sys::List; 2])> {
    // SAFETY: each cast follows the tag.
    unsafe {
        let filter = (*scan).qual.cast_const();
        // Conditions that an index answers are kept in their original form; in an index-only scan they
        // are expressed in columns of the index.
        let of_index = match (*scan).type_ {
            pg_sys::NodeTag::T_IndexScan => (*scan.cast::<pg_sys::IndexScan>()).indexqualorig,
            pg_sys::NodeTag::T_BitmapHeapScan => {
                (*scan.cast::<pg_sys::BitmapHeapScan>()).bitmapqualorig
            }
            pg_sys::NodeTag::T_IndexOnlyScan => {
                let only = scan.cast::<pg_sys::IndexOnlyScan>();
                let column = column.in_index((*only).indextlist)?;
                return Some((column, [(*only).recheckqual.cast_const(), filter]));
            }
            _ => std::ptr::null_mut(),
        };
        Some((*column, [of_index.cast_const(), filter]))
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
                    if column.is_equality(clause.opno, clause.inputcollid)
                        && let Some(other) = compared_with(clause, column.rti, column.attno)
                        && let Some((value, _)) = value_of(other, params)
                    {
                        each(value);
                        return true;
                    }
                }
                pg_sys::NodeTag::T_ScalarArrayOpExpr => {
                    let clause = &*clause.cast::<pg_sys::ScalarArrayOpExpr>();
                    if clause.useOr
                        && column.is_equality(clause.opno, clause.inputcollid)
                        && list::length(clause.args) == 2
                        && is_column(list::nth(clause.args, 0), column.rti, column.attno)
                    {
                        let list = bare(list::nth(clause.args, 1));
                        if (*list).type_ == pg_sys::NodeTag::T_ArrayExpr {
                            return each_of(
                                (*list.cast::<pg_sys::ArrayExpr>()).elements,
                                params,
                                each,
                            );
                        }
                        if let Some((array, typid)) = value_of(list, params) {
                            return elements(array, typid, each);
                        }
                    }
                }
                // The planner's form of `column = true` and `column = false`.
                pg_sys::NodeTag::T_Var
                    if column.is_boolean && is_column(clause, column.rti, column.attno) =>
                {
                    each(pg_sys::Datum::from(true));
                    return true;
                }
                pg_sys::NodeTag::T_BoolExpr if column.is_boolean => {
                    let not = &*clause.cast::<pg_sys::BoolExpr>();
                    if not.boolop == pg_sys::BoolExprType::NOT_EXPR
                        && is_column(list::nth(not.args, 0), column.rti, column.attno)
                    {
                        each(pg_sys::Datum::from(false));
                        return true;
                    }
                }
                _ => {}
            }
        }
        false
    }
}

/// The values of a list of constants and parameters, if they are few and all of them known.
unsafe fn each_of(
    nodes: *const pg_sys::List,
    params: pg_sys::ParamListInfo,
    each: &mut impl FnMut(pg_sys::Datum),
) -> bool {
    // SAFETY: a list of expressions.
    unsafe {
        let count = list::length(nodes);
        if count > ELEMENTS_MAX as usize
            || (0..count).any(|i| value_of(list::nth(nodes, i), params).is_none())
        {
            return false;
        }
        for i in 0..count {
            if let Some((value, _)) = value_of(list::nth(nodes, i), params) {
                each(value);
            }
        }
        true
    }
}

/// Lists that are longer name nobody in particular.
const ELEMENTS_MAX: i32 = 64;

/// The elements of an array, if they are few.
unsafe fn elements(
    array: pg_sys::Datum,
    typid: pg_sys::Oid,
    each: &mut impl FnMut(pg_sys::Datum),
) -> bool {
    // SAFETY: an array of that type; its elements are read before anything is freed.
    unsafe {
        let element = c::get_element_type(c::getBaseType(typid));
        if element == pg_sys::InvalidOid {
            return false;
        }
        let (mut length, mut by_value, mut align) = (0, false, 0);
        c::get_typlenbyvalalign(element, &mut length, &mut by_value, &mut align);
        let mut values = std::ptr::null_mut();
        let mut nulls = std::ptr::null_mut();
        let mut count = 0;
        c::deconstruct_array(
            c::pg_detoast_datum(array.cast_mut_ptr()).cast(),
            element,
            i32::from(length),
            by_value,
            align,
            &mut values,
            &mut nulls,
            &mut count,
        );
        if count > ELEMENTS_MAX {
            return false;
        }
        for i in 0..count as usize {
            if !*nulls.add(i) {
                each(*values.add(i));
            }
        }
        true
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
            .find(|(side, _)| is_column(*side, rti, attno))
            .map(|(_, other)| other)
    }
}

/// Whether an expression is that column.
unsafe fn is_column(node: *mut pg_sys::Node, rti: pg_sys::Index, attno: i16) -> bool {
    // SAFETY: a tagged node.
    unsafe {
        let node = bare(node);
        if (*node).type_ != pg_sys::NodeTag::T_Var {
            return false;
        }
        let var = &*node.cast::<pg_sys::Var>();
        var.varno as pg_sys::Index == rti && var.varattno == attno && var.varlevelsup == 0
    }
}

fn is_integer(typid: pg_sys::Oid) -> bool {
    [pg_sys::INT2OID, pg_sys::INT4OID, pg_sys::INT8OID].contains(&typid)
}

/// An expression without the changes of type that change nothing.
///
/// # Safety
/// A tagged node.
pub unsafe fn bare(mut node: *mut pg_sys::Node) -> *mut pg_sys::Node {
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
