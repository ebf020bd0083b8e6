"""What there is in a script: its preprocessing, its lists of clients, its processes and states."""

import ast

from fedbridge.bridge import migrate_names as names
from fedbridge.bridge.aliases import Aliases
from fedbridge.bridge.migrate_data import Preprocess, preprocess_of
from fedbridge.bridge.migrate_names import Unknown
from fedbridge.bridge.source import Source


class Found:
    """The parts of one script, by the names that they have in it.

    Attributes:
        aliases: What its names stand for.
        preprocess: Functions from a data set to one of batches.
        lists: Assignments of the clients of a round.
        helpers: Functions that return the clients of a round.
        pipelines: Of client data that are preprocessed as a whole, the text of their pipeline.
        processes: What builders gave.
        states: Names of a process's states.
        old_metrics: Names of metrics in the form of TFF before 0.20: "train" or "eval".
        dead: Ids of assignments that nothing reads once `input_spec` is gone.
    """

    def __init__(self, source: Source):
        self.tree = source.tree
        self.aliases = Aliases()
        self.aliases.read(source.tree)
        statements = [node for node in ast.walk(source.tree) if isinstance(node, ast.stmt)]
        statements.sort(key=lambda node: (node.lineno, node.col_offset))
        self.preprocess: dict[str, Preprocess] = {
            found.name: found for node in statements if (found := preprocess_of(node)) is not None
        }
        self.lists: dict[str, ast.Assign] = {}
        self.helpers: dict[str, ast.FunctionDef] = {}
        self.pipelines: dict[str, str] = {}
        self.processes: dict[str, names.Builder] = {}
        self.states: set[str] = set()
        self.old_metrics: dict[str, str] = {}
        for node in statements:
            if isinstance(node, ast.FunctionDef) and isinstance(node.body[-1], ast.Return):
                if is_list(node.body[-1].value):
                    self.helpers[node.name] = node
            elif isinstance(node, ast.Assign):
                self._assigned(node)
        self.dead: set[int] = set()
        self._find_dead([node for node in statements if isinstance(node, ast.Assign)])

    def symbol(self, node: ast.AST) -> str:
        """The name of TFF behind an expression, `tff.` first, or ""."""
        symbol = self.aliases.symbol(node) or ""
        return symbol if symbol.startswith("tff.") else ""

    def builder(self, node: ast.AST) -> names.Builder | None:
        """The builder that a call calls."""
        return names.BUILDERS.get(self.symbol(node.func)) if isinstance(node, ast.Call) else None

    def constraint(self) -> ast.keyword | None:
        """The first constraint of a Keras weight, `kernel_constraint=...`."""
        keywords = (node for node in ast.walk(self.tree) if isinstance(node, ast.keyword))
        named = (one for one in keywords if (one.arg or "").endswith("_constraint"))
        is_none = lambda one: isinstance(one.value, ast.Constant) and one.value.value is None
        return next((one for one in named if not is_none(one)), None)

    def makes_list(self, node: ast.AST) -> bool:
        """Whether an expression gives the clients of a round."""
        return is_list(node) or called_name(node) in self.helpers

    def is_evaluation(self, name: str) -> bool:
        """Whether this is an older evaluation, a function of weights and data."""
        builder = self.processes.get(name)
        return builder is not None and builder.old and builder.name == "fed_eval"

    def preprocessing(self, function: ast.expr, arguments: list[str]) -> tuple[str, str]:
        """The pipeline that a preprocessing gives, and the name of its function of a batch.

        Raises:
            Unknown: It is not understood.
        """
        found = self.preprocess.get(function.id) if isinstance(function, ast.Name) else None
        if found is None:
            raise Unknown(function, "preprocessing that is not taken apart")
        constant = isinstance(found.node, ast.Assign)
        pipeline = found.name if constant else f"{found.name}({', '.join(arguments)})"
        return pipeline, found.function_name

    def _assigned(self, node: ast.Assign) -> None:
        target, value = node.targets[0], node.value
        if isinstance(target, ast.Name) and self.makes_list(value):
            self.lists[target.id] = node
        if isinstance(target, ast.Tuple) and is_method(value, "next"):
            self._next(target, value)
        pairs = [(target, value)]
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            pairs = list(zip(target.elts, value.elts, strict=False))
        for name, made in pairs:
            if not isinstance(name, ast.Name):
                continue
            if is_method(made, "preprocess"):
                self.pipelines[name.id], _ = self.preprocessing(preprocess_fn(made), [])
            elif is_method(made, "initialize"):
                self.states.add(name.id)
            elif (builder := self.builder(made)) is not None:
                self.processes[name.id] = builder
            elif self.is_evaluation(called_name(made)):
                self.old_metrics[name.id] = "eval"

    def _next(self, target: ast.Tuple, value: ast.expr) -> None:
        """`state, metrics = process.next(...)`."""
        if len(target.elts) != 2:
            return
        state, metrics = target.elts
        if isinstance(state, ast.Name):
            self.states.add(state.id)
        builder = self.processes.get(ast.unparse(value.func.value))  # type: ignore[attr-defined]
        if isinstance(metrics, ast.Name) and builder is not None and builder.old:
            self.old_metrics[metrics.id] = "train"

    def _find_dead(self, assignments: list[ast.Assign]) -> None:
        gone: set[int] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and self.symbol(node.func).endswith(".from_keras_model"):
                given = names.given(node, names.FROM_KERAS)
                for name in ("input_spec", "dummy_batch"):
                    if name in given:
                        gone.update(map(id, ast.walk(given[name])))
        loads = [node for node in ast.walk(self.tree) if isinstance(node, ast.Name)]
        loads = [node for node in loads if isinstance(node.ctx, ast.Load)]
        while True:
            before = len(self.dead)
            for node in assignments:
                read = {load.id for load in loads if id(load) not in gone}
                target = node.targets[0]
                unread = isinstance(target, ast.Name) and target.id not in read
                if unread and self._reads_data(node.value):
                    self.dead.add(id(node))
                    gone.update(map(id, ast.walk(node)))
            if len(self.dead) == before:
                return

    def _reads_data(self, node: ast.expr) -> bool:
        text = ast.unparse(node)
        words = ("create_tf_dataset", "element_spec", "element_type_structure", "tf.nest", "iter(")
        return any(word in text for word in (*words, *self.preprocess, *self.helpers))


def is_list(node: ast.AST | None) -> bool:
    """`[preprocess(data.create_tf_dataset_for_client(c)) for c in ids]`."""
    one_loop = isinstance(node, ast.ListComp) and len(node.generators) == 1
    return one_loop and "create_tf_dataset_for_client" in ast.unparse(node)  # type: ignore[arg-type]


def preprocess_fn(call: ast.AST) -> ast.expr:
    """The function of `client_data.preprocess(function)`."""
    assert isinstance(call, ast.Call)
    return names.given(call, ("preprocess_fn",), least=1)["preprocess_fn"]


def is_method(node: ast.AST, name: str) -> bool:
    """Whether a node calls the method of this name."""
    func = node.func if isinstance(node, ast.Call) else None
    return isinstance(func, ast.Attribute) and func.attr == name


def called_name(node: ast.AST) -> str:
    """The plain name that a node calls, or ""."""
    func = node.func if isinstance(node, ast.Call) else None
    return func.id if isinstance(func, ast.Name) else ""
