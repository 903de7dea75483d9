# What the recipes of AudioLM share: tokenizers, stages, the baseline, and the way from sounds to results. A recipe sets NAME (its folder),
# TARGETS (what the masked model learns to tell), FRAMES (their rates), EXPERIMENTS and the defaults that are its own, includes this, and
# says how RECORDINGS are made, what its experiments rest on, and what HEAR asks the judges.
include ../stages.mk

# Appended to the commands of a stage: make all LM_OPTIONS="--trainer.max_steps 100" COUNT=20 SEEDS=0
CODEC_OPTIONS ?=
MASKED_OPTIONS ?=
TOKENS_OPTIONS ?= --variants 2
# Of the semantic codes that acoustic stages learn from: --other_voices N lends them the voices of others. Empty: those of the recordings.
OTHER_VOICES ?=
# The manifest whose held-out recordings the experiments begin with.
PROMPTS ?= $(RECORDINGS)
# Of all stages, and of the baseline.
LM_OPTIONS ?=
# Whose frames become semantic codes: those of a layer of the masked model, or mel, mfcc or chroma, then with FRAME_OPTIONS.
FEATURES ?= masked
FRAME_OPTIONS ?=
SEEDS ?= 0 1 2

RECORDINGS := $(OUT)/recordings.jsonl
# The manifest that everything learns from, and the stages that are trained beside the baseline.
LEARNED ?= $(RECORDINGS)
STAGES ?= semantic acoustic
SEMANTIC := $(OUT)/tokens/semantic
ACOUSTIC := $(OUT)/tokens/acoustic
SOUNDS := $(OUT)/sounds
seeds = $(foreach seed,$(SEEDS),$(OUT)/$(1)-$(seed).done)
AUDIOLM := $(call seeds,audiolm)
ONLY := $(call seeds,lm/only)
EXPERIMENT = $(PYTHON) experiment.py $(1) --out $(OUT) --recordings $(PROMPTS) --count $(COUNT) --seeds $(SEEDS)
VOICES = "$(JUDGES_PYTHON)" $(ROOT)/tools/judge_arms.py --judges "$(JUDGES)" --judge voice
COUNTED = "$(JUDGES_PYTHON)" results.py $(1) --judges "$(JUDGES)" --sounds $(SOUNDS) -o $@ --times $(OUT)/times \
  --command '$(call COMMAND,$(1))'

.PHONY: all chain models clean $(EXPERIMENTS)

all: models $(if $(JUDGES),$(EXPERIMENTS)) ## From recordings to models; with JUDGES also the results of the experiments

chain: $(firstword $(AUDIOLM)) ## From recordings to one AudioLM, of the first seed

models: $(foreach seed,$(SEEDS),$(foreach stage,$(STAGES),$(OUT)/lm/$(stage)-$(seed).done)) $(AUDIOLM) $(ONLY) ## All seeds of AudioLM and of the baseline

# --- data -------------------------------------------------------------------------------------------------------------

# The folder of the set itself, or one that holds it under the set's name.
define MANIFEST
@$(if $(DATA),,$(error $(DATA_MISSING)))
$(call TIMED,recordings)
source="$(DATA)"; if [ -d "$$source/$(1)" ]; then source="$$source/$(1)"; fi
$(KIT) manifest "$$source" -o $@
endef

# --- tokenizers -------------------------------------------------------------------------------------------------------

$(OUT)/codec.done: codec.yaml $(LEARNED)
	@$(call TIMED,codec)
	rm -f $@
	$(KIT) fit -c $< $(FRESH) --data.manifest $(LEARNED) --model.export $(OUT)/codec \
	  --trainer.default_root_dir $(OUT)/codec.run $(CODEC_OPTIONS)
	touch $@

$(OUT)/targets.done: $(LEARNED)
	@$(call TIMED,targets)
	rm -f $@
	$(KIT) kmeans $(LEARNED) -o $(OUT)/targets $(TARGETS) $(FRAMES)
	touch $@

$(OUT)/masked.done: masked.yaml $(OUT)/targets.done
	@$(call TIMED,masked)
	rm -f $@
	$(KIT) fit -c $< $(FRESH) --data.manifest $(LEARNED) --model.targets $(OUT)/targets --model.export $(OUT)/masked \
	  --trainer.default_root_dir $(OUT)/masked.run $(MASKED_OPTIONS)
	touch $@

ifeq ($(FEATURES),masked)
$(OUT)/semantic.done: $(OUT)/masked.done
READ_BY := --features $(OUT)/masked --layer $(LAYER)
else
READ_BY := --features $(FEATURES) $(FRAMES) $(FRAME_OPTIONS)
endif
$(OUT)/semantic.done: $(LEARNED)
	@$(call TIMED,semantic)
	rm -f $@
	$(KIT) kmeans $(LEARNED) -o $(OUT)/semantic $(READ_BY) --codebook_size $(CODES)
	touch $@

# Codes of another tokenizer are worth nothing: those that are older than it go; an interrupted run goes on. Both runs have the same
# options, so that their rows are of the same sounds.
define TOKENIZE
@$(call TIMED,tokens-$(@F:.done=))
if [ -e $@ ] || [ $(@:.done=)/train/tokens.json -ot $(1).done ]; then rm -rf $(@:.done=) $@; fi
$(KIT) tokenize $(1) $(LEARNED) -o $(@:.done=)/train --split train $(TOKENS_OPTIONS)
$(KIT) tokenize $(1) $(LEARNED) -o $(@:.done=)/valid --split valid
touch $@
endef
$(SEMANTIC).done: $(OUT)/semantic.done
	$(call TOKENIZE,$(OUT)/semantic)
$(ACOUSTIC).done: $(OUT)/codec.done
	$(call TOKENIZE,$(OUT)/codec)

PREFIX := $(if $(OTHER_VOICES),$(OUT)/tokens/lent,$(SEMANTIC))
$(OUT)/tokens/lent.done: $(OUT)/semantic.done
	@$(call TIMED,tokens-lent)
	if [ -e $@ ] || [ $(@:.done=)/train/tokens.json -ot $< ]; then rm -rf $(@:.done=) $@; fi
	$(KIT) tokenize $(OUT)/semantic $(LEARNED) -o $(@:.done=)/train --split train $(TOKENS_OPTIONS) $(OTHER_VOICES)
	touch $@

# --- models -----------------------------------------------------------------------------------------------------------

# Nor is what was learned from other codes.
STALE = fresh=$(FRESH); for codes in $(filter $(OUT)/tokens/%,$^); do \
  if [ $(@:.done=.run)/checkpoints/last.ckpt -ot $$codes ]; then fresh=--fresh; fi; done
define MODEL
@$(call TIMED,lm-$(@F:.done=))
rm -f $@
$(STALE)
$(KIT) fit -c $< $$fresh --seed_everything $* --data.seed $* --model.export $(@:.done=) \
  --trainer.default_root_dir $(@:.done=.run) --data.shards $(1)/train --data.valid_shards $(1)/valid $(2) $(LM_OPTIONS)
touch $@
endef
CODEC := --model.codec $(OUT)/codec
IN_FRONT := --data.prefix_shards $(PREFIX)/train --data.valid_prefix_shards $(SEMANTIC)/valid \
  --model.semantic $(OUT)/semantic --model.lm.prefix.codebook_size $(CODES)
$(OUT)/lm/semantic-%.done: semantic.yaml $(SEMANTIC).done
	$(call MODEL,$(SEMANTIC),--model.semantic $(OUT)/semantic --model.lm.codebook_size $(CODES))
$(OUT)/lm/acoustic-%.done: acoustic.yaml $(sort $(SEMANTIC).done $(PREFIX).done) $(ACOUSTIC).done
	$(call MODEL,$(ACOUSTIC),$(CODEC) $(IN_FRONT))
$(OUT)/lm/only-%.done: only.yaml $(ACOUSTIC).done
	$(call MODEL,$(ACOUSTIC),$(CODEC))

define ASSEMBLE
$(KIT) assemble $(^:.done=) -o $(@:.done=)
touch $@
endef
$(OUT)/audiolm-%.done: $(OUT)/lm/semantic-%.done $(OUT)/lm/acoustic-%.done
	@$(ASSEMBLE)

# --- experiments ------------------------------------------------------------------------------------------------------

$(SOUNDS)/recordings.done: $(OUT)/codec.done
$(SOUNDS)/%.done: experiment.py
	@$(call TIMED,sounds-$*)
	$(call EXPERIMENT,$*)
	touch $@

$(SOUNDS)/%.heard: $(SOUNDS)/%.done $(JUDGES_READY)
	@$(if $(JUDGES),,$(error $(JUDGES_MISSING)))
	$(call TIMED,judged-$*)
	$(HEAR)
	touch $@

results/%.json: results.py $(JUDGES_READY)
	@$(if $(JUDGES),,$(error $(JUDGES_MISSING)))
	$(call COUNTED,$*)
	$(MAKE) table

clean: ## Remove what this recipe has made
	rm -rf $(OUT)
