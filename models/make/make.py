#!/usr/bin/env python3
"""Makes models/bert-tiny: a small BERT encoder, trained from scratch.

    pip install -r requirements.txt
    python make.py train --out DIR     # corpus -> tokenizer -> weights, and record.json
    python make.py export --out DIR    # ONNX graph and goldens, from DIR's weights
    python make.py stats --out DIR     # weight and activation statistics
    python make.py all --out DIR       # the three of them in order

`export` and `stats` read the weights that are already in DIR (by default the
committed ones, ../bert-tiny), so the ONNX graph and the goldens can be made
again without training again.

The corpus is the English prose which Python and Rust install with themselves:
the docstrings of the Python standard library, pydoc's topics, the Rust books
and the Rust standard library's reference. It is read from the installed
Python and from the installed Rust toolchain (component `rust-docs`); nothing
is downloaded, and the text is not redistributed.

What repeats and what does not:
  * the corpus depends on the exact versions of Python and Rust; record.json
    holds both and the SHA-256 of the text;
  * given the corpus, the tokenizer is always the same (`train_tokenizer` says
    what is done for that);
  * given both, every random choice comes from SEED and torch runs on a single
    thread with deterministic algorithms, so the weights repeat bit for bit on
    the same kind of machine with the same packages. A different CPU or a
    different torch rounds differently, and over thousands of steps that gives
    other weights of the same quality;
  * given the weights, the float64 goldens repeat to about 1e-14, and the ONNX
    graph holds the very same f32 weights.
"""

import argparse
import ast
import builtins
import hashlib
import html
import json
import math
import os
import platform
import random
import re
import subprocess
import sys
import time
import unicodedata
import warnings
from pathlib import Path

# Both before torch and tokenizers start their threads.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.nn.functional as F

HERE = Path(__file__).resolve().parent
DEFAULT_OUT = HERE.parent / "bert-tiny"

SEED = 20240607

# The geometry is google/bert_uncased_L-2_H-128_A-2's ("bert-tiny"), but for
# the vocabulary: 2048 word pieces instead of 30522.
GEOMETRY = dict(
    vocab_size=2048,
    hidden_size=128,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=512,
    max_position_embeddings=512,
    type_vocab_size=2,
    hidden_act="gelu",
    layer_norm_eps=1e-12,
    initializer_range=0.05,  # narrow layers start better from more than 0.02
)

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PAD, UNK, CLS, SEP, MASK = range(5)

# The training recipe. Steps, not minutes: minutes would not repeat.
STEPS = 2000
BATCH_TOKENS = 2048  # 32 rows of 64 tokens, or fewer and longer rows
PEAK_LR = 2e-3
MASKED = 0.25  # more than the usual 0.15: a short training has to get more out of each row
WARMUP = 200
WEIGHT_DECAY = 0.05  # on every parameter, LayerNorm gains and biases included
DROPOUT = 0.0  # the model is far too small for its corpus to overfit it
ACTIVATION_LIMIT = 3.0
SCORE_LIMIT = 6.0
ACTIVATION_PENALTY = 0.05
FEATURE_SCALE = 0.25  # a power of two, so that scaling changes no bit of a mantissa


# --------------------------------------------------------------------------
# Corpus
# --------------------------------------------------------------------------

# Plain ASCII for what these texts use of typography.
TYPOGRAPHY = str.maketrans({
    "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"',
    "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\u2014": "-",
    "\u2026": "...", "\u00a0": " ", "\u200b": "", "\u2212": "-", "\u00d7": "x",
})


def clean_paragraph(text):
    """One line of ASCII prose, or None for what is code, a table or a scrap."""
    text = text.translate(TYPOGRAPHY)
    text = re.sub(r":[a-z:]+:`~?([^`]*)`", r"\1", text)  # :func:`x` -> x
    text = re.sub(r"`{1,2}([^`]*)`{1,2}_{0,2}", r"\1", text)
    text = re.sub(r"\*{1,2}([^*\s][^*]*)\*{1,2}", r"\1", text)
    text = re.sub(r"\s+", " ", text).strip(" -*#>")
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    if len(text) < 30 or not text[0].isalnum():
        return None
    if text[-1] not in ".!?:" or ">>>" in text or "--" in text:
        return None
    letters = sum(c.isalpha() or c == " " for c in text)
    words = re.findall(r"[A-Za-z]{2,}", text)
    if letters < 0.85 * len(text) or len(words) < 5:
        return None
    return text


def split_sentences(paragraph):
    parts = re.split(r"(?<=[.!?])\s+(?=[A-Z\"'(])", paragraph)
    return [p for p in parts if len(p) >= 12]


def python_documents():
    """(name, paragraphs) for the installed Python, in a fixed order."""
    import pydoc_data.topics

    for topic, text in sorted(pydoc_data.topics.topics.items()):
        yield f"topic/{topic}", re.split(r"\n\s*\n", text)

    paragraphs = []
    for name, thing in sorted(vars(builtins).items()):
        paragraphs += re.split(r"\n\s*\n", getattr(thing, "__doc__", None) or "")
        if isinstance(thing, type):
            for _, member in sorted(vars(thing).items()):
                doc = getattr(member, "__doc__", None)
                if isinstance(doc, str):
                    paragraphs += re.split(r"\n\s*\n", doc)
    yield "builtins", paragraphs

    library = Path(os.__file__).parent
    skipped = {"test", "tests", "idle_test", "site-packages", "dist-packages",
               "__pycache__", "_bundled", "lib2to3", "turtledemo"}
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).parts
        if skipped & set(parts) or any(p.startswith("config-") for p in parts):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        paragraphs = []
        for node in ast.walk(tree):
            if isinstance(node, kinds):
                doc = ast.get_docstring(node)
                if doc:
                    paragraphs += re.split(r"\n\s*\n", doc)
        yield "lib/" + "/".join(parts), paragraphs


# The parts of `rust-docs` under MIT OR Apache-2.0 only (the embedded book's
# prose is under CC-BY-SA, so it is left out).
RUST_BOOKS = ["book", "reference", "nomicon", "cargo", "rustc", "rustdoc",
              "rust-by-example", "edition-guide", "style-guide", "clippy",
              "unstable-book", "error_codes", "std"]


def rust_documents():
    """(name, paragraphs) for the installed Rust documentation, in a fixed order."""
    sysroot = subprocess.run(["rustc", "--print", "sysroot"], check=True,
                             capture_output=True, text=True).stdout.strip()
    root = Path(sysroot) / "share" / "doc" / "rust" / "html"
    if not (root / "book").is_dir():
        raise SystemExit("the Rust documentation is not installed: rustup component add rust-docs")
    for book in RUST_BOOKS:
        for path in sorted((root / book).rglob("*.html")):
            if path.name in ("print.html", "toc.html", "all.html", "404.html"):
                continue
            page = path.read_text(encoding="utf-8", errors="replace")
            page = page[max(page.find("<main"), 0):]
            page = re.sub(r"(?s)<(pre|script|style|table)\b.*?</\1>", " ", page)
            paragraphs = [html.unescape(re.sub(r"<[^>]*>", "", p))
                          for p in re.findall(r"(?s)<p>(.*?)</p>", page)]
            yield f"{book}/{path.relative_to(root / book).as_posix()}", paragraphs


def collect_corpus():
    """Documents, each a list of sentences; a paragraph is taken once only."""
    seen = set()
    documents = []
    counts = {}
    for origin, source in (("python", python_documents()), ("rust", rust_documents())):
        for _, paragraphs in source:
            sentences = []
            for paragraph in paragraphs:
                paragraph = clean_paragraph(paragraph)
                if paragraph is None or paragraph in seen:
                    continue
                seen.add(paragraph)
                sentences += split_sentences(paragraph)
            if len(sentences) >= 2:
                documents.append(sentences)
                c = counts.setdefault(origin, {"documents": 0, "sentences": 0, "characters": 0})
                c["documents"] += 1
                c["sentences"] += len(sentences)
                c["characters"] += sum(map(len, sentences))
    text = "\n\n".join("\n".join(d) for d in documents) + "\n"
    digest = hashlib.sha256(text.encode("ascii")).hexdigest()
    return documents, {"sha256": digest, "bytes": len(text), "parts": counts}


# --------------------------------------------------------------------------
# Tokenizer
# --------------------------------------------------------------------------

def wordpiece(vocab=None):
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    kwargs = dict(unk_token="[UNK]", max_input_chars_per_word=100)
    if vocab is not None:
        kwargs.update(vocab=vocab, continuing_subword_prefix="##")
    tokenizer = Tokenizer(models.WordPiece(**kwargs))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return tokenizer


def train_tokenizer(documents, out):
    """Trains 2048 word pieces and writes the four tokenizer files.

    The trainer numbers the pieces as it meets them in a hash map, so their
    order is not the same in every run. The pieces are therefore numbered here:
    the special tokens, the single characters, their continuations, and then
    the rest by length and alphabet.
    """
    from tokenizers import AddedToken, Tokenizer, processors, trainers

    alphabet = sorted({chr(c) for c in range(0x21, 0x7F)} - {chr(c) for c in range(0x41, 0x5B)})
    tokenizer = wordpiece()
    tokenizer.train_from_iterator(
        (s for d in documents for s in d),
        trainers.WordPieceTrainer(
            vocab_size=GEOMETRY["vocab_size"], min_frequency=2, special_tokens=SPECIAL,
            initial_alphabet=alphabet, limit_alphabet=len(alphabet),
            continuing_subword_prefix="##", show_progress=False))
    pieces = [p for p in tokenizer.get_vocab() if p not in SPECIAL]

    def order(piece):
        continued = piece.startswith("##") and len(piece) > 2
        body = piece[2:] if continued else piece
        return (len(body) > 1, len(body) > 1 and len(body), continued, body)

    vocab = {p: i for i, p in enumerate(SPECIAL + sorted(pieces, key=order))}
    assert len(vocab) == GEOMETRY["vocab_size"], len(vocab)

    tokenizer = wordpiece(vocab)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in SPECIAL])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)])
    assert [tokenizer.token_to_id(t) for t in SPECIAL] == [0, 1, 2, 3, 4]

    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"), pretty=True)
    write_text(out / "vocab.txt", "".join(f"{p}\n" for p in vocab))
    write_json(out / "special_tokens_map.json", {
        "cls_token": "[CLS]", "mask_token": "[MASK]", "pad_token": "[PAD]",
        "sep_token": "[SEP]", "unk_token": "[UNK]"})
    write_json(out / "tokenizer_config.json", {
        "added_tokens_decoder": {
            str(i): {"content": t, "lstrip": False, "normalized": False,
                     "rstrip": False, "single_word": False, "special": True}
            for i, t in enumerate(SPECIAL)},
        "clean_up_tokenization_spaces": True,
        "cls_token": "[CLS]",
        "do_basic_tokenize": True,
        "do_lower_case": True,
        "mask_token": "[MASK]",
        "model_max_length": 512,
        "never_split": None,
        "pad_token": "[PAD]",
        "sep_token": "[SEP]",
        "strip_accents": None,
        "tokenize_chinese_chars": True,
        "tokenizer_class": "BertTokenizer",
        "unk_token": "[UNK]"})
    return Tokenizer.from_file(str(out / "tokenizer.json"))


def check_tokenizer(out):
    """tokenizer.json against the slow BertTokenizer, which reads vocab.txt."""
    from tokenizers import Tokenizer
    from transformers import BertTokenizer

    fast = Tokenizer.from_file(str(out / "tokenizer.json"))
    slow = BertTokenizer.from_pretrained(str(out))
    texts = [
        "", " ", "\t\n", "Hello, world!", "The list is sorted in place.",
        "Caf\u00e9 na\u00efve fa\u00e7ade \u00c5ngstr\u00f6m \u00dcBER", "e\u0301a\u0300 o\u0308",
        "\u0130stanbul \u0131\u015f\u0131k", "Stra\u00dfe \u1e9e", "\u4e2d\u6587 and English\u6df7\u5408",
        "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8", "\ud55c\uad6d\uc5b4",
        "emoji \U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 end", "\u2014dash\u2014 \u201cquoted\u201d \u2026",
        "nul\x00bell\x07del\x7f\ufffdsoft\u00adhyphen", "a\u200bb\u200dc\u2060d\ufeffe",
        "non\u00a0breaking\u2003space\u3000wide", "tab\tand\r\nline\u2028ends\u2029too",
        "x" * 100, "x" * 101, "a" * 99 + "!", "don't can't it's", "snake_case CamelCase kebab-case",
        "$^~`|<>+=", "\u00bd \u00b2 \u2460 \ufb01le", "\u0391\u0392\u0393 \u03b1\u03b2\u03b3 \u0410\u0411\u0412",
        "\u0939\u093f\u0928\u094d\u0926\u0940", "\u0627\u0644\u0639\u0631\u0628\u064a\u0629", "[MASK] and [SEP] inside",
        "[mask] lower, [ CLS ]", "http://example.org/a?b=c&d=e#f", "3.14159 1e-6 0x1F 1,000,000",
        "##prefix # # ##", "\U00020000\U0002f800 rare", "\u01c5 \u00b5 \u212b",
    ]
    rng = random.Random(SEED)
    pools = [range(0x20, 0x7F), range(0, 0x250), range(0x370, 0x530), range(0x2000, 0x2070),
             range(0x4E00, 0x4E80), range(0x1F600, 0x1F650), range(0x300, 0x330)]
    for _ in range(2000):
        pool = rng.sample(pools, rng.randint(1, 3))
        text = "".join(chr(rng.choice(rng.choice(pool))) for _ in range(rng.randint(1, 40)))
        # Python and the tokenizers crate do not agree on code points that
        # Unicode has not assigned: the first drops them as control characters.
        texts.append("".join(c for c in text if unicodedata.category(c) != "Cn"))
    different = [t for t in texts if fast.encode(t).ids != slow(t)["input_ids"]]
    pair_a, pair_b = fast.encode("Open a file.", "Close it."), slow("Open a file.", "Close it.")
    assert pair_a.ids == pair_b["input_ids"] and pair_a.type_ids == pair_b["token_type_ids"]
    return len(texts), different


# --------------------------------------------------------------------------
# Training
# --------------------------------------------------------------------------

class Examples:
    """Draws masked rows for the two objectives from tokenized documents."""

    def __init__(self, documents, seed):
        self.documents = documents
        self.starts = [(d, s) for d, doc in enumerate(documents) for s in range(len(doc))]
        self.rng = random.Random(seed)
        self.np_rng = np.random.default_rng(seed)

    def _take(self, document, start, length):
        ids, at = [], start
        while at < len(document) and len(ids) < length:
            ids += document[at]
            at += 1
        return ids, at

    def _row(self, length):
        """(ids of A, ids of B or None, label): 0 B follows A, 1 B does not, -100 no B."""
        rng = self.rng
        if rng.random() < 0.1:  # now and then a shorter row, so that padding is seen
            length = rng.randint(8, length)
        d, s = rng.choice(self.starts)
        document = self.documents[d]
        if rng.random() < 0.1:
            ids, _ = self._take(document, s, length - 2)
            return ids[:length - 2], None, -100
        room = length - 3
        a, at = self._take(document, s, max(1, int(room * rng.uniform(0.25, 0.75))))
        a = a[:max(1, int(room * 0.75))]
        if rng.random() < 0.5 and at < len(document):
            b, label = self._take(document, at, room - len(a))[0], 0
        else:
            while True:
                d2, s2 = rng.choice(self.starts)
                if d2 != d:
                    break
            b, label = self._take(self.documents[d2], s2, room - len(a))[0], 1
        return a, b[:room - len(a)], label

    def batch(self, rows, length):
        ids = np.full((rows, length), PAD, np.int64)
        types = np.zeros((rows, length), np.int64)
        attention = np.zeros((rows, length), np.int64)
        labels = np.zeros(rows, np.int64)
        for r in range(rows):
            a, b, labels[r] = self._row(length)
            row = [CLS] + a + [SEP]
            first = len(row)
            if b is not None:
                row += b + [SEP]
                types[r, first:len(row)] = 1
            ids[r, :len(row)] = row
            attention[r, :len(row)] = 1
        # BERT's masking, but for how many pieces it takes; of these 80 % [MASK], 10 % random, 10 % kept.
        chosen = (self.np_rng.random(ids.shape) < MASKED) & (ids > MASK)
        targets = ids[chosen]
        how = self.np_rng.random(ids.shape)
        masked = ids.copy()
        masked[chosen & (how < 0.8)] = MASK
        swapped = chosen & (how >= 0.9)
        masked[swapped] = self.np_rng.integers(MASK + 1, GEOMETRY["vocab_size"], swapped.sum())
        # Short rows would only ever train the first positions. Half of them are
        # moved to a random place in the table, so that all 512 are trained.
        offsets = np.zeros(rows, np.int64)
        moved = self.np_rng.random(rows) < 0.5
        offsets[moved] = self.np_rng.integers(0, 512 - length + 1, moved.sum())
        positions = offsets[:, None] + np.arange(length)[None, :]
        t = torch.from_numpy
        return dict(input_ids=t(masked), token_type_ids=t(types), attention_mask=t(attention),
                    position_ids=t(positions), chosen=t(chosen), targets=t(targets), labels=t(labels))


@torch.no_grad()
def initialise(model, tokenized):
    """A better start than noise, so that a few minutes of training go further.

    Everything set here is trained on afterwards like the rest.
      * position embeddings: sinusoids, so that neighbouring places, and all 512
        of them, start out alike;
      * the first layer's two heads: one looks at the place before, the other at
        the place after (a rotation of those sinusoids), both pass on what they see;
      * word embeddings: factors of the positive pointwise mutual information of
        the pieces within five places of each other in the training documents;
      * bias of the vocabulary head: the log frequencies of the pieces.
    """
    size, width = GEOMETRY["vocab_size"], GEOMETRY["hidden_size"]
    spread = GEOMETRY["initializer_range"]
    half, head = width // 2, width // GEOMETRY["num_attention_heads"]

    rates = torch.exp(torch.arange(half) * (-math.log(160.0) / half))
    angles = torch.arange(GEOMETRY["max_position_embeddings"])[:, None] * rates
    table = torch.cat([angles.sin(), angles.cos()], 1)
    model.bert.embeddings.position_embeddings.weight.copy_(spread * math.sqrt(2) * table)

    attention = model.bert.encoder.layer[0].attention
    query, key = attention.self.query.weight, attention.self.key.weight
    for number, shift in enumerate((-1, 1)):
        for p in range(head // 2):
            turn = float(rates[p]) * shift
            sin_row, cos_row = number * head + p, number * head + head // 2 + p
            key[sin_row, p] += 1
            key[cos_row, half + p] += 1
            query[sin_row, p] += math.cos(turn)
            query[sin_row, half + p] += math.sin(turn)
            query[cos_row, half + p] += math.cos(turn)
            query[cos_row, p] -= math.sin(turn)
    attention.self.value.weight += 0.7 * torch.eye(width)
    attention.output.dense.weight += 0.7 * torch.eye(width)
    model.cls.predictions.transform.dense.weight += 0.7 * torch.eye(width)

    together = np.zeros((size, size))
    frequency = np.zeros(size)
    for document in tokenized:
        ids = np.array([i for sentence in document for i in sentence])
        frequency += np.bincount(ids, minlength=size)
        for distance in range(1, 6):
            np.add.at(together, (ids[:-distance], ids[distance:]), 1 / distance)
            np.add.at(together, (ids[distance:], ids[:-distance]), 1 / distance)
    together = together ** 0.75
    sums = together.sum(1, keepdims=True) + 1e-9
    ratio = np.maximum(together * together.sum() / (sums * sums.T), 1.0)
    values, vectors = np.linalg.eigh(np.log(ratio))
    top = np.argsort(-np.abs(values))[:width]
    factors = vectors[:, top] * np.sqrt(np.abs(values[top]))
    factors -= factors[MASK + 1:].mean(0)
    # A random rotation, so that no single channel holds the largest factor.
    factors = factors @ np.linalg.qr(np.random.default_rng(SEED).normal(size=(width, width)))[0]
    factors /= np.sqrt(np.maximum(np.linalg.norm(factors, axis=1, keepdims=True), 1e-9))
    factors *= spread / factors[MASK + 1:].std()
    words = model.bert.embeddings.word_embeddings.weight
    words[MASK + 1:] = torch.tensor(factors[MASK + 1:], dtype=torch.float32)

    share = frequency / frequency.sum()
    model.cls.predictions.bias.copy_(torch.tensor(np.log(share + 1e-6), dtype=torch.float32))


def attention_scores(queries, keys):
    """The scaled products which go into the softmax, from what the two layers give."""
    heads = GEOMETRY["num_attention_heads"]
    queries, keys = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (queries, keys))
    return queries @ keys.transpose(2, 3) / math.sqrt(queries.shape[-1])


def objectives(model, batch):
    """The two losses, the activation penalty, and the two numbers of right answers."""
    normed, queries, keys = [], [], []

    def collect(module, into):
        return module.register_forward_hook(lambda module, args, output: into.append(output))

    hooks = [collect(m, normed) for m in model.bert.modules() if isinstance(m, torch.nn.LayerNorm)]
    hooks += [collect(layer.attention.self.query, queries) for layer in model.bert.encoder.layer]
    hooks += [collect(layer.attention.self.key, keys) for layer in model.bert.encoder.layer]
    out = model.bert(input_ids=batch["input_ids"], token_type_ids=batch["token_type_ids"],
                     attention_mask=batch["attention_mask"], position_ids=batch["position_ids"])
    for hook in hooks:
        hook.remove()
    # Only the masked places go through the vocabulary head.
    scores = model.cls.predictions(out.last_hidden_state[batch["chosen"]])
    mlm = F.cross_entropy(scores, batch["targets"])
    following = model.cls.seq_relationship(out.pooler_output)
    nsp = F.cross_entropy(following, batch["labels"], ignore_index=-100)
    # A hinge on the output of all five LayerNorms and on the attention scores:
    # what goes beyond the limit costs its square. It keeps every channel's
    # range small, so that no activation comes near 8, from where an f32's last
    # place is 1e-6; and a score's rounding goes through an exponential.
    penalty = sum((F.relu(h.abs() - ACTIVATION_LIMIT) ** 2).sum(-1).mean()
                  for h in normed)
    penalty = penalty + sum((F.relu(attention_scores(q, k).abs() - SCORE_LIMIT) ** 2).sum(-1).mean()
                            for q, k in zip(queries, keys))
    right = (scores.argmax(-1) == batch["targets"]).float().mean()
    asked = batch["labels"] != -100
    right_nsp = (following.argmax(-1) == batch["labels"])[asked].float().mean()
    return mlm, nsp, penalty, right, right_nsp


def set_up_torch():
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def batch_shape(step):
    """Mostly rows of 64; every tenth step 128, 256 or 512, so that long rows are known."""
    length = 64
    if step % 10 == 9:
        length = (128, 256, 512)[step // 10 % 3]
    return BATCH_TOKENS // length, length


@torch.no_grad()
def evaluate(model, documents):
    """Losses and accuracies on the documents kept out of training."""
    model.eval()
    examples = Examples(documents, SEED + 1)
    sums = np.zeros(5)
    rounds = 40
    for _ in range(rounds):
        sums += [x.item() for x in objectives(model, examples.batch(64, 64))]
    model.train()
    mlm, nsp, penalty, right, right_nsp = (sums / rounds).tolist()
    return {"mlm_loss": round(mlm, 4), "mlm_accuracy": round(right, 4),
            "nsp_loss": round(nsp, 4), "nsp_accuracy": round(right_nsp, 4),
            "activation_penalty": round(penalty, 5)}


def train(out, steps):
    from transformers import BertConfig, BertForPreTraining

    set_up_torch()
    documents, corpus = collect_corpus()
    print("corpus", json.dumps(corpus), flush=True)
    tokenizer = train_tokenizer(documents, out)
    count, different = check_tokenizer(out)
    assert not different, different[:5]
    print(f"tokenizer: same ids as BertTokenizer on {count} texts", flush=True)

    tokenized = [[e.ids for e in tokenizer.encode_batch(d, add_special_tokens=False)]
                 for d in documents]
    pieces = sum(len(s) for d in tokenized for s in d)
    unknown = sum(i == UNK for d in tokenized for s in d for i in s)
    held_out = [d for i, d in enumerate(tokenized) if i % 40 == 0]
    kept = [d for i, d in enumerate(tokenized) if i % 40 != 0]
    print(f"{pieces} pieces, {unknown} unknown; {len(kept)} documents to train on, "
          f"{len(held_out)} held out", flush=True)

    config = BertConfig(**GEOMETRY, pad_token_id=PAD, hidden_dropout_prob=DROPOUT,
                        attention_probs_dropout_prob=DROPOUT)
    model = BertForPreTraining(config).train()
    initialise(model, kept)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LR, betas=(0.9, 0.98),
                                  eps=1e-6, weight_decay=WEIGHT_DECAY)
    examples = Examples(kept, SEED)
    began = time.time()
    running = None
    for step in range(steps):
        rate = PEAK_LR * min((step + 1) / WARMUP, (steps - step) / max(1, steps - WARMUP))
        for group in optimizer.param_groups:
            group["lr"] = rate
        mlm, nsp, penalty, *_ = losses = objectives(model, examples.batch(*batch_shape(step)))
        loss = mlm + nsp + ACTIVATION_PENALTY * penalty
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        now = np.array([x.item() for x in losses])
        running = now if running is None else 0.98 * running + 0.02 * now
        if step % 100 == 99:
            print(f"step {step + 1}: mlm {running[0]:.3f} nsp {running[1]:.3f} "
                  f"penalty {running[2]:.4f} mlm acc {running[3]:.3f} nsp acc {running[4]:.3f} "
                  f"({time.time() - began:.0f} s)", flush=True)

    final = evaluate(model, held_out)
    print("held out", json.dumps(final), flush=True)
    # Dropout does not matter for inference; the file says what BERT's files say.
    model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.1
    scale_features(model.bert)
    save_encoder(model.bert, out)
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True).stdout.strip()
    import onnx, onnxruntime, safetensors, tokenizers, transformers
    record = {
        "corpus": corpus,
        "versions": {"python": platform.python_version(), "rustc": rustc,
                     "torch": torch.__version__.split("+")[0],
                     "transformers": transformers.__version__,
                     "tokenizers": tokenizers.__version__, "safetensors": safetensors.__version__,
                     "numpy": np.__version__, "onnx": onnx.__version__,
                     "onnxruntime": onnxruntime.__version__},
        "pieces": pieces, "unknown_pieces": unknown,
        "documents": {"trained": len(kept), "held_out": len(held_out)},
        "recipe": {"seed": SEED, "steps": steps, "tokens_per_step": BATCH_TOKENS,
                   "peak_learning_rate": PEAK_LR, "warmup_steps": WARMUP,
                   "weight_decay": WEIGHT_DECAY, "masked": MASKED, "dropout": DROPOUT,
                   "activation_limit": ACTIVATION_LIMIT, "score_limit": SCORE_LIMIT,
                   "activation_penalty": ACTIVATION_PENALTY, "feature_scale": FEATURE_SCALE},
        "training_seconds": round(time.time() - began),
        "held_out": final,
    }
    # A trial run elsewhere leaves the committed model's record alone.
    write_json((HERE if out.resolve() == DEFAULT_OUT else out) / "record.json", record)


def scale_features(bert):
    """Scales the last LayerNorm, and so the features, after training.

    Agreement is asked for in absolute terms, and the rounding of float32 grows
    with what it rounds. The directions of the features, and so all cosines, stay
    as they were trained; the pooler's tanh gets a smaller argument.
    """
    norm = bert.encoder.layer[-1].output.LayerNorm
    with torch.no_grad():
        norm.weight.mul_(FEATURE_SCALE)
        norm.bias.mul_(FEATURE_SCALE)


def save_encoder(bert, out):
    """config.json and model.safetensors as transformers writes them for a BertModel."""
    from transformers import BertModel

    encoder = BertModel(bert.config, add_pooling_layer=True)
    encoder.load_state_dict(bert.state_dict(), strict=True)
    encoder.config.architectures = ["BertModel"]
    encoder.save_pretrained(str(out), safe_serialization=True)
    (out / "model.safetensors").chmod(0o644)


# --------------------------------------------------------------------------
# Export
# --------------------------------------------------------------------------

def load_encoder(out):
    from transformers import BertModel

    # "eager" writes attention out as matrix products and a softmax.
    model, info = BertModel.from_pretrained(
        str(out), attn_implementation="eager", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    return model.eval()


class TwoOutputs(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, token_type_ids):
        out = self.model(input_ids=input_ids, attention_mask=attention_mask,
                         token_type_ids=token_type_ids)
        return out.last_hidden_state, out.pooler_output


INPUTS = ["input_ids", "attention_mask", "token_type_ids"]
OUTPUTS = ["last_hidden_state", "pooler_output"]


def export_onnx(out):
    import onnx

    path = out / "onnx" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    module = TwoOutputs(load_encoder(out)).eval()
    ids = torch.tensor([[CLS, 100, 200, 300, 400, SEP], [CLS, 500, 600, SEP, PAD, PAD]])
    mask = (ids != PAD).long()
    types = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0]])
    axes = {name: {0: "batch", 1: "sequence"} for name in INPUTS + OUTPUTS[:1]}
    axes["pooler_output"] = {0: "batch"}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (ids, mask, types), str(path), dynamo=False, opset_version=17,
                          input_names=INPUTS, output_names=OUTPUTS, dynamic_axes=axes)
    graph = onnx.load(str(path))
    strip_doc_strings(graph)
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, str(path))
    return graph


def strip_doc_strings(message):
    """The exporter notes a stack trace, with local paths, on every node."""
    for field, value in message.ListFields():
        if field.name == "doc_string":
            message.ClearField("doc_string")
        elif field.name == "metadata_props":
            message.ClearField("metadata_props")
        elif field.message_type is not None:
            for item in (value if field.is_repeated else [value]):
                strip_doc_strings(item)


SENTENCES = [
    "The file is closed automatically when the block ends, even if an error is raised.",
    "A list is a mutable sequence.",
    "Ownership is a set of rules that govern how a program manages its memory, "
    "and the compiler checks them before the program runs.",
    "Return the number of characters in the string.",
]
PAIRS = [
    ["How do I read a text file line by line?",
     "Open the file and iterate over it; each iteration returns the next line."],
    ["The compiler reports an error.", "Strings are immutable sequences of characters."],
]


def golden_cases(out):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    tokenizer.enable_padding(pad_id=PAD, pad_token="[PAD]")

    def encoded(items):
        encodings = tokenizer.encode_batch(items)
        return tuple(np.array([getattr(e, f) for e in encodings], np.int64)
                     for f in ("ids", "attention_mask", "type_ids"))

    rng = np.random.default_rng(SEED)
    cases = {
        "single": (np.array([[CLS]], np.int64), np.ones((1, 1), np.int64), np.zeros((1, 1), np.int64)),
        "sentences": encoded(SENTENCES),
        "pair": encoded([tuple(p) for p in PAIRS]),
    }
    # Random pieces under four kinds of mask: none, right, left, with holes.
    ids = rng.integers(MASK + 1, GEOMETRY["vocab_size"], (4, 11))
    mask = np.ones((4, 11), np.int64)
    mask[1, 6:] = 0
    mask[2, :4] = 0
    mask[3, [1, 4, 5, 8, 10]] = 0
    types = np.zeros((4, 11), np.int64)
    types[:, 7:] = 1
    cases["masks"] = (ids, mask, types)
    types = np.zeros((1, 128), np.int64)
    types[:, 70:] = 1
    cases["long"] = (rng.integers(0, GEOMETRY["vocab_size"], (1, 128)),
                     np.ones((1, 128), np.int64), types)
    return cases


def make_goldens(out):
    """What PyTorch gives in float64, from the f32 weights widened exactly."""
    from safetensors.numpy import save_file

    model = load_encoder(out).double()
    tensors = {}
    for name, arrays in golden_cases(out).items():
        arrays = [np.ascontiguousarray(a) for a in arrays]
        with torch.no_grad():
            results = model(**dict(zip(INPUTS, map(torch.from_numpy, arrays))))
        for key, array in zip(INPUTS, arrays):
            tensors[f"{name}/{key}"] = array
        for key in OUTPUTS:
            value = results[key].numpy()
            assert value.dtype == np.float64 and np.isfinite(value).all()
            tensors[f"{name}/{key}"] = np.ascontiguousarray(value)
    save_file(tensors, str(out / "golden.safetensors"))
    (out / "golden.safetensors").chmod(0o644)
    write_json(out / "golden.json", {"sentences": SENTENCES, "pairs": PAIRS})
    return tensors


def check_onnx(out, tensors):
    """Largest distance of ONNX Runtime's f32 results from the float64 goldens."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(out / "onnx" / "model.onnx"), options,
                                           providers=["CPUExecutionProvider"])
    distances = {}
    for name in sorted({k.split("/")[0] for k in tensors}):
        results = session.run(OUTPUTS, {k: tensors[f"{name}/{k}"] for k in INPUTS})
        distances[name] = {k: float(np.abs(r.astype(np.float64) - tensors[f"{name}/{k}"]).max())
                           for k, r in zip(OUTPUTS, results)}
    return distances


def export(out):
    set_up_torch()
    graph = export_onnx(out)
    kinds = {}
    for node in graph.graph.node:
        kinds[node.op_type] = kinds.get(node.op_type, 0) + 1
    print("ONNX operators", json.dumps(dict(sorted(kinds.items()))))
    check_same_weights(out, graph)
    distances = check_onnx(out, make_goldens(out))
    for name, d in distances.items():
        print(f"ONNX Runtime to float64, {name}: "
              + ", ".join(f"{k} {v:.2e}" for k, v in d.items()))
    assert max(v for d in distances.values() for v in d.values()) < 1e-5


def check_same_weights(out, graph):
    """Every weight of the graph is a weight of the safetensors file, bit for bit."""
    from onnx import numpy_helper
    from safetensors.numpy import load_file

    weights = load_file(str(out / "model.safetensors"))
    left = set(weights)
    for initializer in graph.graph.initializer:
        array = numpy_helper.to_array(initializer)
        if array.dtype != np.float32 or array.size < 128:
            continue
        match = [n for n, w in weights.items()
                 if (w.shape == array.shape and np.array_equal(w, array))
                 or (w.ndim == 2 and w.T.shape == array.shape and np.array_equal(w.T, array))]
        assert match, initializer.name
        left -= set(match)
    assert not left, left
    print(f"the graph holds the same {len(weights)} tensors as model.safetensors")


# --------------------------------------------------------------------------
# Statistics
# --------------------------------------------------------------------------

SIMILAR = [
    ("Open the file and read its contents.", "Read the text from an open file."),
    ("Append an item to the end of the list.", "Add an element to a list."),
    ("Return a copy of the string in lower case.", "Convert all characters of a string to lowercase."),
    ("The thread waits until the lock is released.", "Block until the mutex can be acquired."),
]


@torch.no_grad()
def stats(out):
    from tokenizers import Tokenizer

    set_up_torch()
    model = load_encoder(out)
    result = {"layer_norm_gain": {}, "layer_norm_bias": {}}
    for name, p in model.named_parameters():
        if "LayerNorm" in name:
            kind = "layer_norm_gain" if name.endswith("weight") else "layer_norm_bias"
            key = name.rsplit(".", 1)[0]
            result[kind][key] = [round(float(p.min()), 4), round(float(p.max()), 4)]
    result["largest_weight"] = max(
        ((round(float(p.abs().max()), 3), n) for n, p in model.named_parameters()))
    result["bias_std"] = {
        n: round(float(p.std()), 4) for n, p in model.named_parameters()
        if n.endswith("bias") and "LayerNorm" not in n}
    norms = model.embeddings.position_embeddings.weight.norm(dim=1)
    result["position_embedding_norm"] = [round(float(norms.min()), 3), round(float(norms.max()), 3)]

    # Activations over random ids of many lengths under odd masks, and real text.
    rng = np.random.default_rng(SEED + 2)
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    inputs = []
    for i in range(400):
        length = int(rng.choice([1, 2, 3, 7, 16, 33, 64, 128, 200, 256, 384, 512]))
        ids = rng.integers(0, GEOMETRY["vocab_size"], (1, length))
        if i % 8 == 7:
            ids[:] = rng.integers(0, GEOMETRY["vocab_size"])  # one piece throughout
        types = rng.integers(0, 2, (1, length)) if i % 3 == 0 else np.zeros((1, length), np.int64)
        mask = np.ones((1, length), np.int64)
        if i % 4 == 1:
            mask = (rng.random((1, length)) < rng.uniform(0.05, 0.95)).astype(np.int64)
        elif i % 4 == 2:
            mask[:, int(rng.integers(1, length + 1)):] = 0
        elif i % 4 == 3:
            mask[:, :int(rng.integers(0, length))] = 0
        mask[0, int(rng.integers(0, length))] = 1
        inputs.append((ids, mask, types))
    for text in SENTENCES + [t for p in PAIRS + SIMILAR for t in p]:
        ids = np.array([tokenizer.encode(text).ids], np.int64)
        inputs.append((ids, np.ones_like(ids), np.zeros_like(ids)))
    per_layer = [0.0] * 3
    inner, seen = {}, {}

    def watch(name):
        def hook(module, args, output):
            inner[name] = max(inner.get(name, 0.0), float(output.abs().max()))
            seen[name] = output
        return hook

    hooks = []
    for i, layer in enumerate(model.encoder.layer):
        hooks.append(layer.attention.output.LayerNorm.register_forward_hook(watch(f"attention {i} out")))
        hooks.append(layer.attention.self.query.register_forward_hook(watch(f"query {i}")))
        hooks.append(layer.attention.self.key.register_forward_hook(watch(f"key {i}")))
        hooks.append(layer.attention.self.value.register_forward_hook(watch(f"value {i}")))
        hooks.append(layer.intermediate.dense.register_forward_hook(watch(f"intermediate {i}")))
        hooks.append(layer.output.dense.register_forward_hook(watch(f"output {i} before norm")))
    channel = torch.zeros(GEOMETRY["hidden_size"])
    last = []
    weights_top = []
    for ids, mask, types in inputs:
        r = model(*(torch.from_numpy(a.astype(np.int64)) for a in (ids, mask, types)),
                  output_hidden_states=True, output_attentions=True)
        for i in range(GEOMETRY["num_hidden_layers"]):
            scores = attention_scores(seen[f"query {i}"], seen[f"key {i}"])
            inner[f"score {i}"] = max(inner.get(f"score {i}", 0.0), float(scores.abs().max()))
        for i, h in enumerate(r.hidden_states):
            per_layer[i] = max(per_layer[i], float(h.abs().max()))
        channel = torch.maximum(channel, r.last_hidden_state[0].abs().amax(0))
        last.append(r.last_hidden_state[0].abs().flatten())
        if ids.shape[1] == 64 and mask.all():
            weights_top += [float(a.amax(-1).mean()) for a in r.attentions]
    for h in hooks:
        h.remove()
    last = torch.cat(last)
    result["inputs"] = len(inputs)
    result["largest_activation"] = {
        "embeddings": round(per_layer[0], 3), "layer 1": round(per_layer[1], 3),
        "last_hidden_state": round(per_layer[2], 3)}
    result["last_hidden_state"] = {
        "rms": round(float(last.square().mean().sqrt()), 3),
        "beyond_3": float((last > 3).float().mean()), "beyond_4": float((last > 4).float().mean()),
        "largest_per_channel": [round(float(channel.min()), 3), round(float(channel.median()), 3),
                                round(float(channel.max()), 3)]}
    result["largest_inside"] = {k: round(v, 3) for k, v in inner.items()}
    result["mean_of_largest_attention_weight_at_64"] = (
        [round(float(np.mean(weights_top[i::2])), 3) for i in range(2)])

    # Mean-pooled sentence vectors.
    def vector(text):
        ids = torch.tensor([tokenizer.encode(text).ids])
        return F.normalize(model(ids).last_hidden_state[0].mean(0), dim=0)

    related = [(a, b, round(float(vector(a) @ vector(b)), 3)) for a, b in SIMILAR]
    unrelated = []
    for i, (a, _) in enumerate(SIMILAR):
        for j, (_, b) in enumerate(SIMILAR):
            if i != j:
                unrelated.append((a, b, round(float(vector(a) @ vector(b)), 3)))
    result["cosine_related"] = related
    result["cosine_unrelated"] = unrelated
    result["cosine_mean"] = [round(float(np.mean([c for *_, c in related])), 3),
                             round(float(np.mean([c for *_, c in unrelated])), 3)]
    print(json.dumps(result, indent=1))
    count, different = check_tokenizer(out)
    print(f"tokenizer: {count} texts, {len(different)} different")


# --------------------------------------------------------------------------

def write_text(path, text):
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        f.write(text)


def write_json(path, value):
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["train", "export", "stats", "all"])
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args()
    if args.what in ("train", "all"):
        train(args.out, args.steps)
    if args.what in ("export", "all"):
        export(args.out)
    if args.what in ("stats", "all"):
        stats(args.out)


if __name__ == "__main__":
    main()
