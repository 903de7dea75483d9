# What the recipes of published sizes share: files that lie one upon another, codecs, tokens, models. A recipe sets NAME (its folder),
# PRESET and PRESETS, and FILES_... (of which files a model or a codec is laid together), and includes this.
include ../stages.mk

# Appended to the commands of a stage: make all LM_OPTIONS="--trainer.devices 4 --data.batch_size 64"
CODEC_OPTIONS ?=
TOKENS_OPTIONS ?= --device auto
LM_OPTIONS ?=

LAID = $(foreach file,$(FILES_$(1)),-c $(file).yaml)
YAMLS = $(foreach file,$(FILES_$(1)),$(file).yaml)
RECORDINGS := $(OUT)/recordings.jsonl

.PHONY: all clean

ifeq ($(filter $(PRESET),$(PRESETS)),)
$(error PRESET is $(PRESET), wanted one of: $(PRESETS))
endif

all: $(OUT)/$(PRESET).done ## From recordings to a model of PRESET

define MANIFEST
@$(if $(DATA),,$(error $(DATA_MISSING)))
$(call TIMED,recordings)
$(KIT) manifest "$(DATA)" -o $@
endef

define CODEC
$(OUT)/$(1).done: $(call YAMLS,$(1)) $(RECORDINGS)
	@$$(call TIMED,$(1))
	rm -f $$@
	$$(KIT) fit $(call LAID,$(1)) $$(FRESH) --data.manifest $(RECORDINGS) --model.export $(OUT)/$(1) \
	  --trainer.default_root_dir $(OUT)/$(1).run $$(CODEC_OPTIONS)
	touch $$@
endef

# Codes of another tokenizer are worth nothing: tokens that are older than it go; an interrupted run goes on.
define TOKENS
@$(call TIMED,$(@F:.done=))
if [ -e $@ ] || [ $(@:.done=)/train/tokens.json -ot $(1).done ]; then rm -rf $(@:.done=) $@; fi
$(KIT) tokenize $(1) $(RECORDINGS) -o $(@:.done=)/train --split train $(2) $(TOKENS_OPTIONS)
$(KIT) tokenize $(1) $(RECORDINGS) -o $(@:.done=)/valid --split valid $(TOKENS_OPTIONS)
touch $@
endef

# Nor is what was learned from other codes. A model's name, the tokens that it learns from, and where they and their tokenizers are said.
define MODEL
$(OUT)/$(1).done: $(call YAMLS,$(1)) $(foreach codes,$(2),$(OUT)/$(codes).done)
	@$$(call TIMED,$(1))
	rm -f $$@
	fresh=$$(FRESH); for codes in $(2); do
	  if [ $(OUT)/$(1).run/checkpoints/last.ckpt -ot $(OUT)/$$$$codes.done ]; then fresh=--fresh; fi
	done
	$$(KIT) fit $(call LAID,$(1)) $$$$fresh --model.export $(OUT)/$(1) --trainer.default_root_dir $(OUT)/$(1).run $(3) $$(LM_OPTIONS)
	touch $$@
endef
# Shards of some tokens, as what is learned or (prefix_) as what stands in front.
SHARDS = --data.$(2)shards $(OUT)/$(1)/train --data.valid_$(2)shards $(OUT)/$(1)/valid

clean: ## Remove what this recipe has made
	rm -rf $(OUT)
