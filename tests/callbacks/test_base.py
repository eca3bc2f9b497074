import functools
import re

import pytest

from asynccb._ground.events import EVENTS, Event
from asynccb._ground.exceptions import ConfigurationError, DefinitionError
from asynccb.callbacks.base import TrainerCallback, find_hooks, read_options
from asynccb.callbacks.options import Options

OPTIONS = {
    "placement": ["thread", "process"],
    "overflow": [None, "block", "drop_oldest", "drop_newest", "raise"],
    "on_error": ["warn", "disable", "raise"],
    "ranks": ["all", "local_zero", "world_zero"],
    "concurrency": [1, 8],
    "timeout": [None, 0.5, 3],
    "agreed": [True, False],
    "needs_history": [True, False],
}


class Mixed(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        return "inline"

    async def on_log(self, args, state, control, logs=None, **kwargs):
        return "asynchronous"


class TestFinding:
    def test_def_hooks_are_inline_and_async_def_hooks_asynchronous(self):
        hooks = find_hooks(Mixed())
        assert list(hooks.inline) == [Event.STEP_END]
        assert list(hooks.asynchronous) == [Event.LOG]

    def test_hooks_are_bound_to_the_callback(self):
        callback = Mixed()
        assert find_hooks(callback).inline[Event.STEP_END].__self__ is callback
        assert find_hooks(callback).inline[Event.STEP_END](None, None, None) == "inline"

    def test_a_callback_that_overrides_nothing_has_no_hooks(self):
        assert find_hooks(TrainerCallback()) == ({}, {})

    def test_inherited_hooks_are_found(self):
        class Child(Mixed):
            async def on_save(self, args, state, control, **kwargs): ...

        hooks = find_hooks(Child())
        assert set(hooks.inline) | set(hooks.asynchronous) == {
            Event.STEP_END,
            Event.LOG,
            Event.SAVE,
        }

    def test_a_subclass_may_turn_an_inline_hook_into_an_async_one(self):
        class Child(Mixed):
            async def on_step_end(self, args, state, control, **kwargs): ...

        assert Event.STEP_END in find_hooks(Child()).asynchronous
        assert Event.STEP_END not in find_hooks(Child()).inline

    def test_hooks_of_a_mixin_that_is_no_callback_are_found(self):
        class Mixin:
            def on_save(self, args, state, control, **kwargs): ...

        class Child(Mixin, TrainerCallback): ...

        assert list(find_hooks(Child()).inline) == [Event.SAVE]

    def test_a_hook_set_on_the_instance_is_found(self):
        callback = TrainerCallback()
        callback.on_log = lambda *args, **kwargs: None
        assert list(find_hooks(callback).inline) == [Event.LOG]

    def test_a_hook_set_to_none_is_switched_off(self):
        assert Event.LOG not in find_hooks(type("Quiet", (Mixed,), {"on_log": None})()).asynchronous

    def test_a_partial_of_a_coroutine_function_is_asynchronous(self):
        async def send(url, args, state, control, **kwargs): ...

        callback = TrainerCallback()
        callback.on_save = functools.partial(send, "http://localhost")
        assert list(find_hooks(callback).asynchronous) == [Event.SAVE]

    def test_all_sixteen_events_can_be_hooked(self):
        def hook(self, args, state, control, **kwargs): ...

        every = type("Every", (TrainerCallback,), dict.fromkeys(map(str, EVENTS), hook))
        assert list(find_hooks(every()).inline) == list(EVENTS)


class TestRefusal:
    @pytest.mark.parametrize(
        "thing",
        [object(), None, 5, lambda *a, **k: None, Mixed, "on_log"],
        ids=lambda it: type(it).__name__,
    )
    def test_what_is_no_callback_is_refused(self, thing):
        with pytest.raises(DefinitionError, match=r"inherit from asynccb\.TrainerCallback"):
            find_hooks(thing)

    def test_a_misspelt_hook_is_refused_with_the_name_that_was_meant(self):
        class Typo(TrainerCallback):
            def on_step_ended(self, args, state, control, **kwargs): ...

        with pytest.raises(
            DefinitionError, match=r"Typo\.on_step_ended.*did you mean 'on_step_end'"
        ):
            find_hooks(Typo())

    def test_a_misspelt_hook_of_a_base_class_is_refused(self):
        class Typo(TrainerCallback):
            async def on_logs(self, args, state, control, **kwargs): ...

        with pytest.raises(DefinitionError, match="did you mean 'on_log'"):
            find_hooks(type("Child", (Typo,), {})())

    @pytest.mark.parametrize(
        "hook",
        [
            lambda self: None,
            lambda self, args, state: None,
            lambda self, args, state, control: None,
            lambda self, args, state, control, logs: None,
            lambda self, args, state, control, more, **kwargs: None,
            lambda self, args, state, control, *, must, **kwargs: None,
            5,
        ],
    )
    def test_a_hook_that_cannot_be_called_as_hooks_are_is_refused(self, hook):
        wrong = type("Wrong", (TrainerCallback,), {"on_log": hook})
        with pytest.raises(
            DefinitionError,
            match=r"Wrong\.on_log .*the parameters \(self, args, state, control, \*\*kw",
        ):
            find_hooks(wrong())

    def test_an_async_hook_with_a_wrong_signature_is_refused(self):
        class Wrong(TrainerCallback):
            async def on_evaluate(self, metrics): ...

        with pytest.raises(DefinitionError, match=r"Wrong\.on_evaluate"):
            find_hooks(Wrong())

    def test_a_hook_may_name_every_keyword_instead_of_taking_all(self):
        class Named(TrainerCallback):
            def on_log(
                self, args, state, control, model, processing_class, optimizer, lr_scheduler,
                train_dataloader, eval_dataloader, logs,
            ): ...  # fmt: skip

        assert list(find_hooks(Named()).inline) == [Event.LOG]

    def test_a_generator_is_refused_because_nothing_of_it_would_run(self):
        class Yields(TrainerCallback):
            def on_log(self, args, state, control, **kwargs):
                yield

        with pytest.raises(DefinitionError, match=r"Yields\.on_log is a generator"):
            find_hooks(Yields())

    def test_an_async_generator_is_refused_because_nothing_of_it_would_run(self):
        class Yields(TrainerCallback):
            async def on_log(self, args, state, control, **kwargs):
                yield

        with pytest.raises(DefinitionError, match=r"Yields\.on_log is a generator"):
            find_hooks(Yields())


class TestOptions:
    def test_defaults_are_those_of_the_class(self):
        assert read_options(TrainerCallback()) == Options()

    @pytest.mark.parametrize(
        ("name", "value"), [(name, value) for name, values in OPTIONS.items() for value in values]
    )
    def test_a_value_that_an_option_takes_is_read(self, name, value):
        callback = Mixed()
        setattr(callback, name, value)
        find_hooks(callback)
        assert getattr(read_options(callback), name) == value

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("placement", "gpu"),
            ("placement", None),
            ("overflow", "drop"),
            ("on_error", "ignore"),
            ("on_error", None),
            ("ranks", 0),
            ("concurrency", 0),
            ("concurrency", 1.5),
            ("concurrency", None),
            ("timeout", 0),
            ("timeout", -1.0),
            ("timeout", float("nan")),
            ("timeout", "5"),
            ("agreed", "yes"),
            ("agreed", None),
            ("needs_history", [True]),
        ],
    )
    def test_any_other_value_is_refused_by_class_option_and_value(self, name, value):
        with pytest.raises(
            ConfigurationError, match=rf"Wrong\.{name} is {re.escape(repr(value))}; it takes"
        ):
            find_hooks(type("Wrong", (Mixed,), {name: value})())

    def test_a_tensor_is_refused_as_an_option_without_being_compared(self):
        torch = pytest.importorskip("torch")
        wrong = type("Wrong", (Mixed,), {"ranks": torch.arange(2)})
        with pytest.raises(ConfigurationError, match=r"Wrong\.ranks is tensor"):
            find_hooks(wrong())


class TestCallbacksOfTransformers:
    def test_their_callbacks_are_taken_with_the_hooks_that_they_override(self):
        from transformers import EarlyStoppingCallback

        hooks = find_hooks(EarlyStoppingCallback())
        assert set(hooks.inline) == {Event.TRAIN_BEGIN, Event.EVALUATE}
        assert not hooks.asynchronous

    def test_their_callbacks_may_have_other_methods_named_on(self):
        from transformers import TrainerCallback as Theirs

        class Custom(Theirs):
            def on_my_own_account(self): ...

            async def on_log(self, args, state, control, logs=None, **kwargs): ...

        assert list(find_hooks(Custom()).asynchronous) == [Event.LOG]

    def test_their_callbacks_get_the_default_options(self):
        from transformers import PrinterCallback

        assert read_options(PrinterCallback()) == Options()
