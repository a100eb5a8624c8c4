"""Fine-tuning: a pretrained model learns a domain. Its four steps, each where its name says.

1. **A pretrained model**: ``base.py``.
2. **Hyper-parameters**: ``config.py`` has them all; ``freezing.py`` and ``lora.py`` decide which
   weights move, ``rates.py`` how fast, ``frozen_cache.py`` saves computing what doesn't move.
3. **Training on the domain's data**: ``finetune.py`` has the loop, ``data.py`` and
   ``laboratory.py`` what it learns from, ``batches.py`` and ``objective.py`` what a step is,
   ``run.py`` what a kill must not lose, ``writer_run.py`` what readers and writers add to it.
   ``averaging.py`` keeps the mean of the weights that a run passes, or mixes the base in again.
4. **Validation**: ``validation.py`` measures the domain and what may be forgotten meanwhile,
   ``report.py`` sets both side by side.

Readers are fine-tuned so. The same four steps make classifiers of an encoder: ``classifier.py`` is
the model, ``labelled.py`` and ``laboratory_texts.py`` are its data, ``classify.py`` measures it
beside its baselines, of which ``from_scratch.py`` has the one from random weights. And they make
writers: ``summaries.py`` and ``domain_text.py`` say what is learned and compare what comes of it,
``writing.py`` measures it, ``chat.py`` has the format of public chat models.
"""
