"""What is printed around an answer, in the documents' language; warnings stay in English."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minirag.rag.pipeline import Abstention


@dataclass(frozen=True)
class Frame:
    """Words and sentences, some with places for ``str.format``."""

    language: str
    sources: str
    read: str
    retrieved: str
    nearest: str
    similarity: str
    shared: str
    quoted: str
    holds: str
    by_the_model: str
    by_words: str
    from_memory: str
    unsupported: str
    nothing: str
    started: str
    took: str
    searching: str
    commands: str
    nothing_asked: str
    forgot: str
    forgot_one: str

    def abstention(self, result: Abstention) -> str:
        """Why there is no answer."""
        from minirag.rag.pipeline import Unmentioned
        from minirag.rag.reading import Refusal

        if self.language == "en":
            return result.text
        if isinstance(result, Unmentioned):
            return (
                "Los documentos no parecen mencionar aquello por lo que se pregunta: el mejor "
                f"pasaje comparte pocas palabras raras con la pregunta ({result.shared:.2f}), y "
                f"por debajo de {result.least:.2f} la respuesta trataría de otra cosa."
            )
        if isinstance(result, Refusal):
            if not result.hits:
                return "El modelo dice que no lo sabe; no se le dio ningún pasaje."
            return (
                "Los documentos no lo dicen: el modelo leyó los pasajes más cercanos y se niega a "
                "responder."
            )
        if result.best_score is None:
            return (
                "Ningún pasaje comparte una palabra con la pregunta, o no hay pasajes: no hay de "
                "dónde responder."
            )
        return (
            "Los documentos no parecen responder a esto: la similitud del pasaje más cercano es "
            f"{result.best_score:.2f}, y por debajo de {result.threshold:.2f} la respuesta sería "
            "una conjetura."
        )


FRAMES = {
    "en": Frame(
        language="en",
        sources="Sources",
        read="Read",
        retrieved="Retrieved",
        nearest="The nearest passages all the same:",
        similarity="similarity",
        shared="rare words",
        quoted="the answer stands there word for word, characters {start} to {end}",
        holds="holds {share:.0%} of the answer's words ({by})",
        by_the_model="cited by the model",
        by_words="found by comparing words",
        from_memory="From memory: the model was given no passage, so there is no source.",
        unsupported="No passage given holds most of the answer's words: don't rely on it.",
        nothing="The model wrote nothing.",
        started="{seconds:.1f} s to start, ",
        took="{retrieve:.2f} s to retrieve, {read:.1f} s to read",
        searching="searching for",
        commands="/sources: the last answer's passages   /reset: forget   /quit: end",
        nothing_asked="Nothing has been asked yet.",
        forgot="Forgot {n} turns.",
        forgot_one="Forgot 1 turn.",
    ),
    "es": Frame(
        language="es",
        sources="Fuentes",
        read="Leído",
        retrieved="Encontrado",
        nearest="De todos modos, los pasajes más cercanos:",
        similarity="similitud",
        shared="palabras raras",
        quoted="la respuesta está ahí palabra por palabra, caracteres {start} al {end}",
        holds="contiene el {share:.0%} de las palabras de la respuesta ({by})",
        by_the_model="citado por el modelo",
        by_words="hallado comparando palabras",
        from_memory="De memoria: el modelo no recibió ningún pasaje, así que no hay fuente.",
        unsupported="Ningún pasaje contiene la mayor parte de la respuesta: no se fíe de ella.",
        nothing="El modelo no escribió nada.",
        started="{seconds:.1f} s para empezar, ",
        took="{retrieve:.2f} s para buscar, {read:.1f} s para leer",
        searching="se busca",
        commands="/sources: los pasajes de la última respuesta   /reset: olvidar   /quit: salir",
        nothing_asked="Aún no se ha preguntado nada.",
        forgot="Olvidados {n} turnos.",
        forgot_one="Olvidado 1 turno.",
    ),
}
