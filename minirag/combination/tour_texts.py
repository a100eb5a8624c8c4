"""What the tour says, in English and in Spanish."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from minirag.corpus.grammar import check_language


@dataclass(frozen=True)
class Chapter:
    """One stop of the tour."""

    title: str
    introduction: str
    notice: str  # what to notice, in one sentence
    read_on: str  # the file that explains it, as it lies in a checkout and where it is installed


@dataclass(frozen=True)
class Texts:
    """Everything that the tour says in one language."""

    five_ways: Chapter
    change: Chapter  # notice: {milliseconds}, {relearning}
    unanswerable: Chapter
    table: Chapter  # introduction and notice: {n}
    kinds: Mapping[str, str]  # what is special about a question: see tour.py
    columns: Mapping[str, str]  # slice: over its column, in few letters
    arms: Mapping[str, str]  # by their names in minirag.combination.arms
    relearning: str  # {model}, {seconds}
    relearning_unknown: str
    right_answer: str
    right_refusal: str
    refused: str  # with passages
    unknown: str  # without
    unmentioned: str  # none was worth reading
    stale: str
    no_source: str
    before: str
    after: str
    notice: str
    read_on: str
    took: str  # {seconds}
    on: str  # what to do next


ENGLISH = Texts(
    five_ways=Chapter(
        "The same questions, answered in five ways",
        "Three questions about an invented medicine, each put to five arms: the base model as it "
        "was pretrained; the same, fine-tuned on medical facts without passages; and three that "
        "look for passages first (RAG): the base, the fine-tuned one, and one that was fine-tuned "
        "to read such passages (RAFT).",
        "A fact that was learned can be answered from the weights, one that only a document "
        "states cannot: without passages its answer is a guess, and it never has a source.",
        "minirag/combination/arms.py",
    ),
    change=Chapter(
        "A guideline changes, and the same questions are asked again",
        "One document of the knowledge base is replaced while everything runs. No model is "
        "trained.",
        "Replacing the document took {milliseconds} ms and the next search read it; no weight "
        "has moved, so an arm without passages answers as before: {relearning}.",
        "minirag/retrieval/knowledge_base.py",
    ),
    unanswerable=Chapter(
        "A question that no document answers",
        "Something is found for any question. What shares too few rare words with it is not read, "
        "but a document about the very thing may leave out what is asked.",
        "The right answer is to say that one doesn't know. Saying so has to be learned, and is "
        "never learned wholly; a model that was taught facts alone has an answer to everything.",
        "minirag/corpus/raft.py",
    ),
    table=Chapter(
        "All arms on all kinds of questions",
        "Asked here and now, {n} questions of each kind. Right answers in percent, below them the "
        "95 % interval.",
        "Compare stable with unseen, updated and new (what only documents know), and read down "
        "general (what fine-tuning forgets); with {n} questions of a kind the intervals are wide.",
        "minirag/choosing/rules.py",
    ),
    kinds={
        "stable": "learned in fine-tuning, and a document states it",
        "unseen": "only a document states it",
        "before": "of a guideline: learned in fine-tuning, and a document states it",
        "after": "of the guideline: the document states it anew, what was learned is out of date",
        "unanswerable": "no document states it",
    },
    columns={
        "stable": "stable",
        "unseen": "unseen",
        "updated": "updated",
        "new": "new",
        "general": "general",
        "unanswerable": "no answer",
    },
    arms={
        "base": "base",
        "fine-tuned": "fine-tuned",
        "RAG": "RAG",
        "fine-tuned + RAG": "fine-tuned + RAG",
        "RAFT + RAG": "RAFT + RAG",
    },
    relearning="to teach it, {model} was trained for {seconds} s",
    relearning_unknown="what training it again costs is not known, since the model has no report",
    right_answer="right",
    right_refusal="right: to refuse",
    refused="(the documents don't say)",
    unknown="(doesn't know)",
    unmentioned="(no document mentions it)",
    stale="as it was before the change",
    no_source="in no passage",
    before="before",
    after="now",
    notice="Notice",
    read_on="Read on",
    took="The tour took {seconds} s.",
    on="Go on with your own questions: {command}",
)

SPANISH = Texts(
    five_ways=Chapter(
        "Las mismas preguntas, respondidas de cinco maneras",
        "Tres preguntas sobre una medicina inventada, hechas a cinco sistemas: el modelo base tal "
        "como fue preentrenado; el mismo, ajustado con datos médicos sin pasajes; y tres que antes "
        "buscan pasajes (RAG): el base, el ajustado y uno que fue ajustado para leer pasajes así "
        "(RAFT).",
        "Un dato aprendido se puede responder con los pesos; uno que solo dice un documento, no: "
        "sin pasajes la respuesta es una conjetura, y nunca tiene fuente.",
        "minirag/combination/arms.py",
    ),
    change=Chapter(
        "Cambia una guía, y se vuelve a preguntar lo mismo",
        "Se sustituye un documento de la base de conocimiento mientras todo funciona. No se "
        "entrena ningún modelo.",
        "Sustituir el documento llevó {milliseconds} ms y la búsqueda siguiente ya lo leyó; no se "
        "ha movido ningún peso, así que sin pasajes se responde lo mismo que antes: {relearning}.",
        "minirag/retrieval/knowledge_base.py",
    ),
    unanswerable=Chapter(
        "Una pregunta que ningún documento responde",
        "Para cualquier pregunta se encuentra algo. Lo que comparte con ella pocas palabras raras "
        "no se lee, pero un documento sobre el asunto mismo puede callar lo que se pregunta.",
        "La respuesta correcta es decir que no se sabe. Eso hay que aprenderlo, y nunca se aprende "
        "del todo; un modelo al que solo se le enseñaron datos tiene respuesta para todo.",
        "minirag/corpus/raft.py",
    ),
    table=Chapter(
        "Todos los sistemas con todas las clases de preguntas",
        "Preguntado aquí y ahora, {n} preguntas de cada clase. Respuestas correctas en tanto por "
        "ciento y, debajo, el intervalo del 95 %.",
        "Compare estable con no visto, cambiado y nuevo (lo que solo saben los documentos), y lea "
        "la columna general (lo que el ajuste hace olvidar); con {n} preguntas por clase los "
        "intervalos son anchos.",
        "minirag/choosing/rules.py",
    ),
    kinds={
        "stable": "aprendido en el ajuste fino, y lo dice un documento",
        "unseen": "solo lo dice un documento",
        "before": "de una guía: aprendido en el ajuste fino, y lo dice un documento",
        "after": "de la guía: el documento dice ahora otra cosa; lo aprendido ya no vale",
        "unanswerable": "no lo dice ningún documento",
    },
    columns={
        "stable": "estable",
        "unseen": "no visto",
        "updated": "cambiado",
        "new": "nuevo",
        "general": "general",
        "unanswerable": "sin resp.",
    },
    arms={
        "base": "base",
        "fine-tuned": "ajustado",
        "RAG": "RAG",
        "fine-tuned + RAG": "ajustado + RAG",
        "RAFT + RAG": "RAFT + RAG",
    },
    relearning="para enseñárselo, {model} se entrenó durante {seconds} s",
    relearning_unknown="no se sabe cuánto cuesta volver a entrenarlo, pues el modelo no tiene "
    "informe",
    right_answer="correcto",
    right_refusal="correcto: abstenerse",
    refused="(los documentos no lo dicen)",
    unknown="(no lo sabe)",
    unmentioned="(ningún documento lo menciona)",
    stale="como era antes del cambio",
    no_source="en ningún pasaje",
    before="antes",
    after="ahora",
    notice="Observe",
    read_on="Siga leyendo",
    took="El recorrido llevó {seconds} s.",
    on="Siga con sus propias preguntas: {command}",
)

_TEXTS = {"en": ENGLISH, "es": SPANISH}


def texts_in(language: str) -> Texts:
    """What the tour says in a language.

    Raises
    ------
    UsageError
        If it is neither "en" nor "es".
    """
    check_language(language)
    return _TEXTS[language]
