# SPDX-License-Identifier: LGPL-2.1-or-later
# The command line tool and its bash completion.

bin_PROGRAMS += tools/addcow

tools_addcow_SOURCES = \
	tools/check.cc \
	tools/commit.cc \
	tools/compare.cc \
	tools/convert.cc \
	tools/create.cc \
	tools/disk_strip.cc tools/disk_strip.h \
	tools/disk_svg.cc tools/disk_svg.h \
	tools/export.cc \
	tools/file_names.cc tools/file_names.h \
	tools/fill.cc \
	tools/flatten.cc \
	tools/geometry.cc tools/geometry.h \
	tools/import.cc \
	tools/info.cc \
	tools/interrupt.cc tools/interrupt.h \
	tools/ls.cc \
	tools/main.cc \
	tools/map.cc \
	tools/measure.cc \
	tools/output.cc tools/output.h \
	tools/progress.cc tools/progress.h \
	tools/rebase.cc \
	tools/resize.cc \
	tools/status.cc \
	tools/status_file.cc tools/status_file.h \
	tools/status_text.cc tools/status_text.h \
	tools/use_words.h \
	tools/verbs.cc tools/verbs.h \
	tools/wait.cc tools/wait.h
tools_addcow_LDADD = common/libcontrol.la common/libops.la

bashcompletiondir = $(bashcompdir)
dist_bashcompletion_DATA = completion/addcow
