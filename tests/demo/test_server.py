"""The demo's answers against the library's own, and what it refuses, over HTTP without a network."""

import io
import os
import runpy
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import anyio
import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from glimpsenet.cli import main
from glimpsenet.data.digits import DigitScenes
from glimpsenet.demo import server
from glimpsenet.demo.examples import choose_examples
from glimpsenet.demo.exhibit import SHIPPED, Question, open_exhibits, short_names
from glimpsenet.demo.pictures import from_url, make_square, to_url
from glimpsenet.demo.server import build_app, is_loopback
from glimpsenet.errors import UserError
from glimpsenet.inference import predict
from glimpsenet.inspection.arrows import arrows
from glimpsenet.inspection.field import field
from glimpsenet.inspection.gradients import observe
from glimpsenet.inspection.injection import inject
from glimpsenet.inspection.sweep import sweep
from glimpsenet.runs import Description, load_run, save_weights, write_description

RUN = "/api/runs/0"
BYTES = {"content-type": "application/octet-stream"}


@pytest.fixture(scope="module")
def client(exhibits, examples):
    with TestClient(build_app(exhibits, examples), base_url="http://127.0.0.1:8000") as opened:
        yield opened


@pytest.fixture(scope="module")
def picture(client):
    return upload(client, client.get("/api/examples/3").content).json()["picture"]


def upload(client, data: bytes):
    return client.post(f"{RUN}/picture", content=data, headers=BYTES)


def png(size: tuple[int, int], mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(256, size=(size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(file, "PNG")
    return file.getvalue()


def as_texts(windows) -> list[str]:
    return [f"{glimpse}={','.join(map(repr, window))}" for glimpse, window in enumerate(windows, 1)]


def test_the_page_and_all_that_it_loads_is_here(client):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    for name in ("demo.css", "demo.js", "server.js", "stage.js", "charts.js", "icon.svg"):
        assert client.get(f"/static/{name}").status_code == 200
        text = client.get(f"/static/{name}").text
        assert "https://" not in text
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    about = client.get("/api/about").json()
    assert about["runs"][0]["num_glimpses"] == 4
    assert about["runs"][0]["cost"]["share_of_full_pass"][-1] < 1
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_a_look_says_what_predict_says(client, tmp_path):
    (tmp_path / "photo.png").write_bytes(png((150, 90)))
    (prediction,) = predict(load_run(SHIPPED), [tmp_path / "photo.png"])
    url = upload(client, (tmp_path / "photo.png").read_bytes()).json()["picture"]
    answer = client.post(f"{RUN}/look", json={"picture": url}).json()
    torch.testing.assert_close(torch.tensor(answer["windows"]), prediction.windows)
    torch.testing.assert_close(torch.tensor(answer["probabilities"]), prediction.probabilities, atol=1e-4, rtol=0)
    assert answer["answers"][-1] == prediction.top(-1)[0][0]
    assert len(answer["crops"]) == 4
    assert not answer["stopped_early"]
    assert answer["milliseconds"] > 0


def test_an_example_is_the_scene_with_its_class(client, exhibits):
    rows = client.get("/api/examples?start=2&count=3").json()
    assert [row["place"] for row in rows] == [2, 3, 4]
    config = exhibits[0].run.config
    scene = DigitScenes(config.data, "val", config.model.image_size)[0, 3]
    assert rows[1]["label"] == str(scene.label)
    square = make_square(client.get("/api/examples/3").content, exhibits[0].run)
    assert (square.float() / 255 - scene.image).abs().max() < 0.51 / 255


def test_pictures_come_back_as_they_went(exhibits):
    square = make_square(png((300, 200)), exhibits[0].run)
    assert torch.equal(from_url(to_url(square), exhibits[0].run), square)


def test_a_window_that_is_set_is_looked_through_and_later_ones_react(client, exhibits, picture):
    answer = client.post(f"{RUN}/look", json={"picture": picture, "windows": ["2=0.25,-0.6,0.5"]}).json()
    run = exhibits[0].run
    own, given = inject(run.model, from_url(picture, run), {2: (0.25, -0.6, 0.5)}).rows
    torch.testing.assert_close(torch.tensor(answer["windows"]), given.windows)
    torch.testing.assert_close(torch.tensor(answer["probabilities"]), given.probabilities, atol=1e-4, rtol=0)
    assert not torch.allclose(own.windows[2:], given.windows[2:])


def test_dials_stop_the_loop(client, picture):
    whole = client.post(f"{RUN}/look", json={"picture": picture}).json()
    two = client.post(f"{RUN}/look", json={"picture": picture, "glimpses": 2}).json()
    assert two["windows"] == whole["windows"][:2]
    first = next(glimpse for glimpse, sure in enumerate(whole["confidences"], 1) if sure > 0.9)
    early = client.post(f"{RUN}/look", json={"picture": picture, "exit_confidence": 0.9}).json()
    assert len(early["windows"]) == first
    assert early["stopped_early"] == (first < 4)
    none = client.post(f"{RUN}/look", json={"picture": picture, "policy": "none"}).json()
    assert none["windows"] == [[1, 0, 0]]
    asked = {"picture": picture, "policy": "random"}
    chance = [client.post(f"{RUN}/look", json={**asked, "seed": seed}).json() for seed in (1, 1, 2)]
    assert chance[0]["windows"] == chance[1]["windows"] != chance[2]["windows"]
    centre = client.post(f"{RUN}/look", json={"picture": picture, "policy": "center"}).json()
    assert centre["windows"][1] == centre["windows"][3] == [0.25, 0, 0]


def test_arrows_sweep_and_field_are_those_of_inspection(client, exhibits, picture):
    run = exhibits[0].run
    scene = observe(run.model, from_url(picture, run), 7)
    asked = {"picture": picture, "label": 7}
    answer = client.post(f"{RUN}/look", json={**asked, "arrows": True}).json()
    torch.testing.assert_close(torch.tensor(answer["gradients"]), arrows(scene).gradient, rtol=1e-2, atol=1e-3)
    asked |= {"windows": as_texts(answer["windows"]), "glimpse": 3}
    curves = client.post(f"{RUN}/sweep", json=asked).json()
    expected = sweep(
        scene, "tx", glimpse=3, points=len(curves["tx"]["values"]), scale_range=run.config.model.scale_range
    )
    torch.testing.assert_close(torch.tensor(curves["tx"]["loss"]), expected.loss, rtol=1e-2, atol=1e-3)
    assert curves["tx"]["as_wanted"] == expected.has_wanted_sign
    seen = client.post(f"{RUN}/field", json=asked).json()
    loss = field(scene, glimpse=3, points=15).loss
    assert seen["loss_range"] == pytest.approx([float(loss.min()), float(loss.max())], rel=1e-2, abs=1e-3)
    first = client.post(f"{RUN}/sweep", json={**asked, "glimpse": 1}).json()
    assert "no room to sweep tx" in first["tx"]["refusal"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"picture": "data:image/png;base64,AAAA"}, "cannot read the image"),
        ({"picture": "???"}, "not a PNG in a data URL"),
        ({"picture": to_url(torch.zeros(1, 20, 20))}, "has 20 x 20 pixels; this model takes 80 x 80"),
        ({"picture": to_url(torch.zeros(1, 200, 200))}, "200 x 200 pixels are more than 6400"),
        ({"windows": ["2=0.3,0.9,0"]}, "extends outside the image"),
        ({"windows": ["9=0.3,0,0"]}, "no glimpse 9"),
        ({"windows": ["2=nan,0,0"]}, "finite numbers"),
        ({"glimpses": 5}, "takes 1 to 4 glimpses, not 5"),
        ({"glimpses": 0}, "takes 1 to 4 glimpses, not 0"),
        ({"exit_confidence": 2}, "an exit threshold is a probability"),
        ({"policy": "oracle"}, "unknown policy 'oracle'"),
        ({"label": 10, "arrows": True}, "class 10 is out of range"),
        ({"seed": "x"}, "cannot read the question"),
        ({"file": "/etc/passwd"}, "cannot read the question"),
        ({"seed": 10**30, "policy": "random"}, "seed"),
    ],
)
def test_a_question_that_cannot_be_is_refused_in_words(client, picture, changes, told):
    response = client.post(f"{RUN}/look", json={"picture": picture, **changes})
    assert response.status_code == 400
    assert told in response.json()["error"]


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"[" * 100_000, b"\xff", b'{"picture": 1}', b'{"a": NaN}'])
def test_what_is_no_question_is_refused_in_words(client, body):
    response = client.post(f"{RUN}/look", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert "cannot read the question" in response.json()["error"] or "not a PNG" in response.json()["error"]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("sweep", "send the windows of all glimpses"),
        ("field", "send the windows of all glimpses"),
    ],
)
def test_a_sweep_needs_its_windows(client, picture, path, told):
    response = client.post(f"{RUN}/{path}", json={"picture": picture, "windows": ["3=0.3,0,0"], "glimpse": 3})
    assert (response.status_code, told in response.json()["error"]) == (400, True)


def test_broken_files_are_refused_in_words(client):
    whole = png((200, 200))
    for broken in (b"", b"hello", whole[: len(whole) // 2], b"%!PS-Adobe-3.0 EPSF-3.0\n", b"GIF89a"):
        response = upload(client, broken)
        assert response.status_code == 400
        assert response.json()["error"].startswith("cannot read the image: ")
        assert "BytesIO" not in response.json()["error"]


def test_pictures_are_limited_in_pixels_and_bytes(client, monkeypatch):
    monkeypatch.setattr("glimpsenet.demo.pictures.MAX_PIXELS", 10_000)
    assert "200 x 200 pixels are more than 10000" in upload(client, png((200, 200))).json()["error"]
    assert upload(client, png((100, 100))).status_code == 200
    monkeypatch.setattr(server, "MAX_BYTES", 1_000_000)
    response = client.post(f"{RUN}/picture", content=bytes(1_000_001), headers=BYTES)
    assert response.status_code == 413
    assert "larger than 1 MB" in response.json()["error"]


def test_no_file_of_the_machine_is_reachable(exhibits, examples, client):
    app = build_app(exhibits, examples)
    statuses = []

    async def send(message):
        statuses.append(message.get("status"))

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    for name in (
        "../server.py",
        "/etc/passwd",
        "../../../../../../../../etc/passwd",
        "",
        "../digits/config.json",
        "a\0b",
    ):
        # Clients tidy addresses up; this is how one that does not would be heard.
        scope = {"type": "http", "method": "GET", "path": f"/static/{name}", "headers": [(b"host", b"localhost")]}
        anyio.run(app, {**scope, "query_string": b"", "root_path": ""}, receive, send)
        assert statuses[0] == 404, name
        statuses.clear()
    assert client.get("/api/examples/100000").status_code == 400
    assert client.get("/api/examples/-1").status_code == 404
    assert client.get("/api/examples?start=-5&count=1000").json()[0]["place"] == 0
    assert len(client.get("/api/examples?start=0&count=1000").json()) == server.MAX_EXAMPLES


def test_only_this_page_may_ask(client, exhibits, picture):
    # Another site's form can send these types without asking leave.
    for kind in ("text/plain", "multipart/form-data", "application/x-www-form-urlencoded"):
        assert client.post(f"{RUN}/look", content=b"{}", headers={"content-type": kind}).status_code == 415
    # A name server may give another name this machine's address.
    assert client.get("/", headers={"host": "stranger.example"}).status_code == 400
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
        assert client.get("/", headers={"host": host}).status_code == 200
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "example.org")] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_visitors_at_once_get_what_each_would_get_alone(client, exhibits):
    urls = [upload(client, client.get(f"/api/examples/{place}").content).json()["picture"] for place in range(6)]
    asked = [{"picture": url, "arrows": place % 2 == 0} for place, url in enumerate(urls)]

    def look(question):
        answer = client.post(f"{RUN}/look", json=question).json()
        return answer["windows"], answer["probabilities"], answer["gradients"]

    alone = [look(question) for question in asked]
    with ThreadPoolExecutor(6) as visitors:
        together = list(visitors.map(look, asked * 3))
    assert together == alone * 3


def test_nothing_of_a_visit_is_kept(client, picture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    written = []
    monkeypatch.setattr(os, "open", lambda *args, o=os.open, **kw: (written.append(args), o(*args, **kw))[1])
    upload(client, png((90, 90)))
    client.post(f"{RUN}/look", json={"picture": picture})
    assert not written
    assert not list(tmp_path.iterdir())


def test_a_bug_names_no_file(exhibits, examples, monkeypatch, picture):
    def fail(*_):
        raise RuntimeError("at /home/somebody/secret.txt")

    monkeypatch.setattr(exhibits[0], "_policy", fail)
    with TestClient(
        build_app(exhibits, examples), base_url="http://localhost", raise_server_exceptions=False
    ) as failing:
        response = failing.post(f"{RUN}/look", json={"picture": picture})
    assert response.status_code == 500
    assert "RuntimeError" in response.json()["error"]
    assert "secret" not in response.text


def test_examples_of_a_folder_are_told_by_class_and_offered_to_nobody_else(exhibits, tmp_path):
    for name in ("7/a.png", "cat/b.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(png((30, 20)))
    found = choose_examples(exhibits[0].run, tmp_path, public=True)
    assert {example.name: example.label for example in found} == {"a.png": "7", "b.png": None}
    with pytest.raises(UserError, match="no such file or folder"):
        choose_examples(exhibits[0].run, tmp_path / "nowhere", public=True)


def test_classes_of_a_folder_take_turns_among_the_examples(exhibits, tmp_path):
    for name in ("1", "2", "3"):
        (tmp_path / name).mkdir()
        for place in range(4):
            (tmp_path / name / f"{place}.png").write_bytes(png((30, 20)))
    found = [example.label for example in choose_examples(exhibits[0].run, tmp_path, public=True)]
    assert [sorted(found[start : start + 3]) for start in range(0, 12, 3)] == [["1", "2", "3"]] * 4


def test_a_folder_run_offers_its_own_images_to_this_machine_only(exhibits, tmp_path):
    (tmp_path / "val/3").mkdir(parents=True)
    (tmp_path / "val/3/a.png").write_bytes(png((30, 20)))
    run = replace(exhibits[0].run, config=exhibits[0].run.config.with_data(tmp_path))
    assert [example.label for example in choose_examples(run, None, public=False)] == ["3"]
    assert not choose_examples(run, None, public=True)


def test_the_shipped_model_is_small_and_finds_digits(exhibits, tmp_path):
    run = exhibits[0].run
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 1_000_000
    scenes = DigitScenes(run.config.data, "val", run.config.model.image_size)
    samples = [scenes[0, place] for place in range(100)]
    with torch.inference_mode():
        logits = run.model(run.model.normalization(torch.stack([sample.image for sample in samples]))).logits
    right = logits.argmax(-1) == torch.tensor([sample.label for sample in samples])[:, None]
    assert right[:, -1].float().mean() > 0.95 > right[:, 0].float().mean()
    ship = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks/ship_demo_model.py"))["ship"]
    ship(SHIPPED, tmp_path / "digits")
    again = load_run(tmp_path / "digits")
    assert again.config == run.config
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), run.model.parameters(), strict=True))
    write_description(tmp_path / "digits", replace(run, config=run.config.with_data(tmp_path)))
    with pytest.raises(UserError, match="is no run on digit scenes"):
        ship(tmp_path / "digits", tmp_path / "new")


def test_a_model_without_windows_has_a_page_too(tmp_path):
    torch.manual_seed(0)
    config = replace(load_run(SHIPPED).config, model=replace(load_run(SHIPPED).config.model, num_glimpses=1))
    write_description(tmp_path, description := Description(config, ["a", "b"], 3))
    save_weights(description.build(), tmp_path)
    (exhibit,) = open_exhibits([tmp_path], "cpu")
    answer = exhibit.look(Question(to_url(torch.zeros(3, 80, 80)), arrows=True))
    assert (len(answer["windows"]), answer["gradients"]) == (1, None)


def test_names_are_as_long_as_they_must(tmp_path):
    assert short_names([Path("runs/a")]) == ["a"]
    assert short_names([Path("a/seed-0"), Path("b/seed-0")]) == ["a/seed-0", "b/seed-0"]
    assert short_names([Path("a"), Path("a")]) == ["a", "a"]


def test_a_port_that_is_taken_and_a_folder_without_run_are_told_in_one_line(capsys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for flags, code, told in (
            (["--port", str(listener.getsockname()[1])], 1, "--port 0 takes any free port"),
            (["--port", "70000"], 2, "port must be 0 to 65535"),
            ([str(tmp_path)], 1, "is no run folder"),
        ):
            with pytest.raises(SystemExit) as stop:
                main(["demo", *flags, "--device", "cpu"])
            assert stop.value.code == code
            assert told in capsys.readouterr().err


def test_several_runs_are_on_show_side_by_side(exhibits, examples):
    two = [*exhibits, *open_exhibits([SHIPPED], "cpu")]
    with TestClient(build_app(two, examples), base_url="http://localhost") as opened:
        assert len(opened.get("/api/about").json()["runs"]) == 2
        data = opened.get("/api/examples/0").content
        assert opened.post("/api/runs/1/picture", content=data, headers=BYTES).status_code == 200
        assert "no run 2" in opened.post("/api/runs/2/picture", content=data, headers=BYTES).json()["error"]
