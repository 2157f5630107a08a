"""A real torch module and a real transformers model under watch; the package itself imports neither."""

import numpy as np
import pytest

import failsight
from failsight.runtime.policy_face import PolicyFace
from failsight.testing import fakes

torch = pytest.importorskip("torch")
SPECS = {"actions": fakes.ACTIONS, "observations": fakes.OBSERVATIONS, "clock": None}


def test_tensors_of_half_precision_and_a_hook_on_a_layer():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4)).to(torch.bfloat16)

    class Policy:
        class config:  # noqa: N801 (as LeRobot has it)
            n_action_steps = 2

        def predict_action_chunk(self, batch):
            return network(batch["observation.state"].to(torch.bfloat16))[:, None].repeat(1, 6, 1)

    seen = {"observation.state": torch.ones(1, 4)}
    watched = failsight.watch(Policy(), hidden=network[0], **SPECS)
    watched.reset("home")
    answer = watched.select_action(seen)
    assert (answer.dtype, tuple(answer.shape)) == (torch.bfloat16, (1, 4))
    assert torch.equal(answer, network(torch.ones(1, 4, dtype=torch.bfloat16)).detach())
    hidden = watched._answer.output.hidden
    assert np.allclose(hidden, network[0](torch.ones(4, dtype=torch.bfloat16)).detach().float().numpy(), atol=1e-3)
    watched.close()
    assert not network[0]._forward_hooks, "the network is left as it was"


def test_a_transformers_model_that_generates_gives_one_hidden_state_per_inference():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_embd=8, n_layer=1, n_head=1, n_positions=16, vocab_size=11, eos_token_id=None)
    model = transformers.GPT2LMHeadModel(config).eval()
    prompt = torch.tensor([[1, 2, 3]])

    def policy(observation):
        tokens = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=4, do_sample=False, pad_token_id=0
        )
        return tokens[0, -4:].numpy() / 11.0

    face = PolicyFace(policy, hidden=model.transformer)
    first, second = (face.answer(None, step).output.hidden for step in range(2))
    assert first.tolist() == second.tolist()
    with torch.no_grad():
        whole = model.transformer(
            model.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=4, do_sample=False, pad_token_id=0
            )
        ).last_hidden_state[0]
    assert np.allclose(first, whole[2:6].mean(0).numpy(), atol=2e-2), "the last token of the prompt and three more"
