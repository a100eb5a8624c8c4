"""The IVF index (inverted file): vectors sorted into lists by their nearest centroid.

A search compares the query with the centroids, then with the vectors of the ``nprobe`` nearest
lists only (Sivic and Zisserman 2003; Jégou, Douze and Schmid 2011). Probing every list gives what
exact search gives, to the last bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minirag.errors import StoreError, UsageError
from minirag.retrieval.flat import search_all
from minirag.retrieval.ids import Ids
from minirag.retrieval.index_files import load_rows, save_rows
from minirag.retrieval.kmeans import Start, assign, kmeans
from minirag.retrieval.probing import Scan, search_lists
from minirag.retrieval.rows import COPIED_AT_ONCE, Centroids, RowNumbers, lay_out
from minirag.retrieval.storage import skew_of, whole_number
from minirag.retrieval.store import VectorIndex
from minirag.retrieval.vectors import Floats, Metric, as_count, as_vectors

KIND = "ivf-index"
POINTS_PER_LIST = 39  # fewer training vectors a list make poor centroids (faiss's rule)
MOST_POINTS_PER_LIST = 256  # more make them no better; a sample is trained on
IMBALANCE = 2.0  # how much longer than at training the lists may become, in their squares


class IndexWarning(UserWarning):
    """The index works, but not as well as it could; the message says what to do."""


def lists_for(n: int) -> int:
    """How many lists ``nlist="auto"`` makes of n vectors: √n, or 0 while n is too small for it.

    A query is then compared with √n centroids and lists of √n vectors.
    """
    return int(np.sqrt(n)) if np.sqrt(n) >= POINTS_PER_LIST else 0


class IVFIndex(VectorIndex):
    """Approximate nearest-neighbour search, with the interface and the ids of ``FlatIndex``.

    Until it is trained, and while there are too few vectors to train on, it searches all vectors,
    exactly, and says so in an :class:`IndexWarning`.

    Parameters
    ----------
    dim : int
        D, the vectors' dimension.
    metric : {"cosine", "ip", "l2"}
        As in ``FlatIndex``. Lists are by inner product with centroids of length 1 for cosine and
        ip, by Euclidean distance for l2.
    nlist : int or "auto"
        How many lists; "auto" takes √n of the n vectors that it is trained on.
    warn : bool
        Whether it says so when it could work better; :attr:`unequal` can be asked instead.
    """

    def __init__(
        self,
        dim: int,
        metric: Metric = "cosine",
        nlist: int | Literal["auto"] = "auto",
        *,
        warn: bool = True,
    ) -> None:
        super().__init__(dim, metric)
        self.warn = warn
        if nlist != "auto" and as_count(nlist, "nlist") < 1:
            raise UsageError("nlist is 0; it must be 1 or more, or 'auto'.")
        self.nlist: int | Literal["auto"] = "auto" if nlist == "auto" else int(nlist)
        self._trained_skew: float | None = None
        self._told: set[str] = set()

    @property
    def centroids(self) -> Floats:
        """A copy of the centroids (lists, D); (0, D) until trained."""
        centroids = self._rows.centroids
        return (
            np.empty((0, self.dim), np.float32) if centroids is None else centroids.vectors.copy()
        )

    # -- training ----------------------------------------------------------------------------------

    def train(
        self,
        x: ArrayLike | None = None,
        *,
        iterations: int = 10,
        start: Start = "random",
        seed: int | np.random.Generator = 0,
    ) -> None:
        """Find the centroids by k-means, and sort what is held into their lists.

        Parameters
        ----------
        x : (n, D), optional
            Vectors to train on, like those to come; default: those held. Of more than 256 a list,
            a sample is taken.
        iterations, start, seed
            See :func:`minirag.retrieval.kmeans.kmeans`.
        """
        if x is None:
            rows = self._rows
            vectors, chosen = rows.vectors, rows.all_live()
        else:
            vectors, _ = as_vectors(x, self.dim, self.metric, "training vectors")
            chosen = np.arange(len(vectors))
        n_lists = lists_for(len(chosen)) if self.nlist == "auto" else self.nlist
        if not 0 < n_lists <= len(chosen):
            enough = POINTS_PER_LIST**2 if self.nlist == "auto" else self.nlist
            self._tell(
                "too few",
                f"{len(chosen)} vectors are too few to train {self.nlist} lists on: every search "
                f"goes on scanning all. Call train() again with {enough} or more.",
            )
            return
        generator = np.random.default_rng(seed)
        most = MOST_POINTS_PER_LIST * n_lists
        if len(chosen) > most:
            chosen = np.sort(generator.choice(chosen, most, replace=False))
        found = kmeans(
            vectors[chosen],
            n_lists,
            spherical=self.metric != "l2",
            iterations=iterations,
            start=start,
            seed=generator,
        )
        self.use_centroids(found.centroids)
        self._trained_skew = _skew(found.sizes)

    def use_centroids(self, centroids: ArrayLike, trained_skew: float | None = None) -> None:
        """Sort what is held, and what comes, by these centroids (lists, D).

        ``trained_skew`` is what :attr:`trained_skew` was after their training; default: as it is
        now, or as soon as there are vectors enough.
        """
        vectors, _ = as_vectors(centroids, self.dim, "l2", "centroids")
        if not len(vectors):
            raise UsageError("no centroids were given: give one or more.")
        centres = Centroids.of(vectors.copy())
        with self._lock:
            live = self._rows.all_live()
            parts = np.array_split(live, len(live) // COPIED_AT_ONCE + 1)
            lists = np.concatenate(
                [self._assigned(self._rows.vectors[part], centres) for part in parts]
            )
            self.hold(lay_out(self._rows, live, lists, centres), self._next_id)
            self._trained_skew = _skew(self._rows.live) if trained_skew is None else trained_skew
            self._told = set()

    def _assigned(self, vectors: Floats, centres: Centroids) -> RowNumbers:
        return assign(vectors, centres.vectors, spherical=self.metric != "l2")[0]

    def _lists_of(self, vectors: Floats) -> RowNumbers:
        centres = self._rows.centroids
        return super()._lists_of(vectors) if centres is None else self._assigned(vectors, centres)

    @property
    def trained_skew(self) -> float | None:
        """How unequal the lists were at training (1: not at all); None: not known yet."""
        return self._trained_skew

    @property
    def unequal(self) -> bool:
        """Whether the lists have become so unequal since training that new ones would pay."""
        skew = _skew(self._rows.live)
        trained = self._trained_skew
        return skew is not None and trained is not None and skew > IMBALANCE * trained

    def _change(self, remove: Ids, add: Ids, vectors: Floats) -> None:
        super()._change(remove, add, vectors)
        if self._trained_skew is None:
            self._trained_skew = _skew(self._rows.live)
        if self.unequal:
            self._tell(
                "unequal",
                f"the {len(self._rows.size)} lists have become unequal: their squared lengths sum "
                f"to over {IMBALANCE:g} times what they did at training, and searches take longer "
                "by as much. Call train() to sort them anew.",
                stacklevel=4,
            )

    # -- searching ---------------------------------------------------------------------------------

    def search(
        self,
        queries: ArrayLike,
        k: int,
        *,
        nprobe: int | None = None,
        allowed: Collection[int] | NDArray[Any] | None = None,
        scan: Scan | None = None,
    ) -> tuple[Floats, Ids]:
        """The k nearest vectors of each query among those in its nearest lists.

        Parameters
        ----------
        queries : (Q, D) or (D,)
            One dimension counts as one query.
        k : int
            How many to return; fewer come only if the index (or ``allowed``) holds fewer.
        nprobe : int, optional
            Lists to look into, more for a query whose lists hold fewer than k. Default: see
            :meth:`default_nprobe`.
        allowed : ids, optional
            Search among these alone; ids that the index doesn't hold are passed over.
        scan : Scan, optional
            Filled in with what was looked at.

        Returns
        -------
        scores, ids
            float32 and int64, both (Q, min(k, n)), best first, equal scores by id ascending. The
            scores are the very ones that ``FlatIndex`` gives.
        """
        queries, norms = as_vectors(queries, self.dim, self.metric, "queries")
        rows = self._only(allowed)
        k = min(as_count(k), rows.n_live)
        nprobe = self.default_nprobe() if nprobe is None else as_count(nprobe, "nprobe")
        if nprobe < 1:
            raise UsageError("nprobe is 0: probe one list or more.")
        if rows.centroids is None:
            self._tell(
                "untrained",
                f"this index is not trained, so all its {rows.n_live} vectors are scanned: "
                "call train(), or use FlatIndex.",
            )
            scores, ids = search_all(rows, queries, norms, k, self.metric)
            lists, seen = np.ones(len(queries), int), np.full(len(queries), rows.n_live)
        else:
            scores, ids, lists, seen = search_lists(rows, queries, norms, k, nprobe, self.metric)
        if scan is not None:
            scan.held, scan.lists, scan.vectors = rows.n_live, lists, seen
        return scores, ids

    def default_nprobe(self) -> int:
        """How many lists a search probes unless it is told: a sixteenth, and 8 at least.

        Of 25,000 passages under all-MiniLM-L6-v2 this finds 97 of 100 of the exact top ten.
        """
        return max(8, len(self._rows.size) // 16)

    def _tell(self, topic: str, message: str, stacklevel: int = 3) -> None:
        """Warn, once a topic until the next training."""
        if self.warn and topic not in self._told:
            self._told.add(topic)
            warnings.warn(message, IndexWarning, stacklevel=stacklevel)

    def copy(self) -> IVFIndex:
        """An independent index of the same content; see :meth:`FlatIndex.copy`."""
        other = IVFIndex(self.dim, self.metric, self.nlist, warn=self.warn)
        self._copy_to(other)
        other._trained_skew = self._trained_skew
        return other

    # -- saving ------------------------------------------------------------------------------------

    def save(self, directory: Path | str) -> None:
        """Save into ``directory``; see :meth:`FlatIndex.save`."""
        rows, next_id = self.state()
        settings = {"nlist": self.nlist, "trained_skew": self._trained_skew}
        save_rows(Path(directory), KIND, rows, self.metric, next_id, settings)

    @classmethod
    def load(cls, directory: Path | str, *, mmap: bool = False, verify: bool = True) -> IVFIndex:
        """Read what :meth:`save` wrote; see :meth:`FlatIndex.load`."""
        rows, metric, next_id, meta = load_rows(Path(directory), KIND, mmap=mmap, verify=verify)
        if meta.get("nlist") != "auto" and whole_number(meta, "nlist") < 1:
            raise StoreError("the manifest says nlist = 0: build the index again.")
        index = cls(rows.vectors.shape[1], metric, meta["nlist"])
        index.hold(rows, next_id)
        index._trained_skew = skew_of(meta)
        return index


def _skew(size: RowNumbers) -> float | None:
    """How unequal lists are: their squared lengths against those of equal lists, 1 or more.

    It is the factor by which a search takes longer (faiss's ``imbalance_factor``). None while there
    are fewer than ten vectors a list: then chance alone makes them unequal.
    """
    n, lists = int(size.sum()), len(size)
    return float(lists * np.square(size / n).sum()) if n >= 10 * lists else None
