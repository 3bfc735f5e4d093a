package custom

import (
	"regexp/syntax"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// weigh is a function that returns its first argument, and costs what it
// weighs, as many times as the second says. No expression can call it by name.
const weigh = "@weigh"

// What of an argument is weighed, where it is not all of it so many times.
const (
	texts     = 0  // nothing but texts: of lists and maps the function sees the size alone
	allButMap = -1 // maps are not: they are looked into by key
)

func weighFunction() cel.EnvOption {
	return cel.Function(weigh, cel.Overload(weigh+"_any", []*cel.Type{cel.DynType, cel.IntType}, cel.DynType,
		cel.BinaryBinding(func(v, _ ref.Val) ref.Val { return v })))
}

// accumulator is what macros call the list that they make.
const accumulator = "@result"

// A scale puts weigh around the arguments of calls.
type scale struct {
	tree *ast.AST
	make ast.ExprFactory
	id   int64 // the last that was given out
}

// weighArguments changes the tree so that each call's arguments are weighed
// before it.
func weighArguments(tree *ast.AST) {
	s := &scale{tree: tree, make: ast.NewExprFactory()}
	for id := range tree.IDs() {
		s.id = max(s.id, id)
	}
	ast.PostOrderVisit(tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.CallKind:
			s.call(e.AsCall())
		case ast.MapKind:
			for _, entry := range e.AsMap().Entries() {
				s.put(entry.AsMapEntry().Key(), 1)
			}
		}
	}))
}

// call weighs the arguments of one call.
func (s *scale) call(c ast.CallExpr) {
	args := c.Args()
	if c.IsMemberFunction() {
		args = append([]ast.Expr{c.Target()}, args...)
	}
	how := int64(1)
	switch c.FunctionName() {
	case weigh:
		return
	case operators.Index, operators.OptIndex, operators.OptSelect:
		s.put(args[1], 1) // of a key that is not there the library writes all
		return
	case operators.In:
		s.put(args[0], 1)
		s.put(args[1], allButMap)
		return
	case operators.Add:
		if args[0].Kind() == ast.IdentKind && args[0].AsIdent() == accumulator { // it grows in place
			return
		}
	case operators.Equals, operators.NotEquals, operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals:
		if constant(args[0]) || constant(args[1]) { // as long as what is written
			return
		}
	case "size":
		how = texts
	case "sort", "@sortByAssociatedKeys":
		how = 10 // the logarithm of the items that it may have
	case "matches":
		how = instructions(args[1])/2 + 1
	case "indexOf", "lastIndexOf":
		how = length(args[1])/8 + 1
	case "replace":
		how = length(args[2])/max(length(args[1]), 1) + 1
		if length(args[1]) == 0 {
			how *= 10 // of each character one more, not of what is one unit
		}
	case "join":
		if len(args) == 2 {
			how = length(args[1])/10 + 1
		}
	default:
		if passes(c.FunctionName()) {
			return
		}
	}
	for _, arg := range args {
		s.put(arg, how)
	}
}

// passes reports whether a function looks into nothing, or at numbers alone.
func passes(function string) bool {
	switch function {
	case operators.Conditional, operators.LogicalAnd, operators.LogicalOr, operators.LogicalNot, operators.NotStrictlyFalse,
		operators.Negate, operators.Subtract, operators.Multiply, operators.Divide, operators.Modulo,
		"or", "orValue", "hasValue", "value", "optional.of", "optional.ofNonZeroValue", "optional.none", "dyn", "type", "first", "last":
		return true
	}
	return false
}

// put weighs what e gives: e becomes the call, and what it was moves into it.
func (s *scale) put(e ast.Expr, how int64) {
	if e.Kind() == ast.LiteralKind || e.Kind() == ast.CallKind && e.AsCall().FunctionName() == weigh {
		return
	}
	s.id += 2
	id, times := e.ID(), s.id-1
	inner := s.make.NewUnspecifiedExpr(s.id)
	inner.SetKindCase(e)
	if r, ok := s.tree.ReferenceMap()[id]; ok {
		s.tree.SetReference(s.id, r)
	}
	s.tree.SetType(s.id, s.tree.GetType(id))
	if place, ok := s.tree.SourceInfo().GetOffsetRange(id); ok {
		s.tree.SourceInfo().SetOffsetRange(s.id, place)
	}
	s.tree.SetReference(id, ast.NewFunctionReference(weigh+"_any"))
	s.tree.SetType(id, types.DynType)
	s.tree.SetType(times, types.IntType)
	e.SetKindCase(s.make.NewCall(id, weigh, inner, s.make.NewLiteral(times, types.Int(how))))
}

// constant reports whether nothing of the object is in an expression's value.
func constant(e ast.Expr) bool {
	switch e.Kind() {
	case ast.LiteralKind:
		return true
	case ast.ListKind:
		for _, item := range e.AsList().Elements() {
			if !constant(item) {
				return false
			}
		}
		return true
	case ast.MapKind:
		return e.AsMap().Size() == 0
	}
	return false
}

// length is that of a literal text, in bytes.
func length(e ast.Expr) int64 {
	if e.Kind() == ast.LiteralKind {
		if s, ok := e.AsLiteral().(types.String); ok {
			return int64(len(s))
		}
	}
	return 0
}

// instructions is how long the program of a literal regular expression is:
// each of them may run on each byte of the text.
func instructions(e ast.Expr) int64 {
	if e.Kind() != ast.LiteralKind {
		return maxRegex
	}
	text, _ := e.AsLiteral().(types.String)
	tree, err := syntax.Parse(string(text), syntax.Perl)
	if err != nil {
		return maxRegex
	}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return maxRegex
	}
	return int64(len(program.Inst))
}

// sizes says what calls cost.
type sizes struct{}

// CallCost implements the library's interface.
func (sizes) CallCost(function, _ string, args []ref.Val, result ref.Val) *uint64 {
	cost := uint64(1)
	switch list, ok := result.(traits.Lister); {
	case function == weigh:
		cost += heaviness(args[0], args[1])
	case ok && function != operators.Add && !passes(function) && !indexes(function): // one that it made
		cost += weight(list, maxCost)
	}
	return &cost
}

func indexes(function string) bool {
	return function == operators.Index || function == operators.OptIndex || function == operators.OptSelect
}

func heaviness(v, how ref.Val) uint64 {
	times, _ := how.(types.Int)
	switch v.(type) {
	case types.String, types.Bytes:
		return weight(v, maxCost) * uint64(max(times, 1))
	case traits.Mapper:
		if times == allButMap {
			return 0
		}
	}
	if times == texts {
		return 0
	}
	return weight(v, maxCost) * uint64(max(times, 1))
}

// weight is how much there is of a value, in units of cost. It stops once that
// is more than limit.
func weight(v ref.Val, limit uint64) uint64 {
	var n uint64
	switch v := v.(type) {
	case types.String:
		return uint64(len(v)) / 10
	case types.Bytes:
		return uint64(len(v)) / 10
	case *types.Optional:
		if v.HasValue() {
			n = 1 + weight(v.GetValue(), limit)
		}
	case traits.Mapper:
		for it := v.Iterator(); n <= limit && it.HasNext() == types.True; {
			key := it.Next()
			n += 1 + weight(key, limit)
			if n <= limit {
				n += weight(v.Get(key), limit-n)
			}
		}
	case traits.Lister:
		for it := v.Iterator(); n <= limit && it.HasNext() == types.True; {
			n++
			n += weight(it.Next(), limit-min(n, limit))
		}
	}
	return n
}
