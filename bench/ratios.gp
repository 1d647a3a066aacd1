# SPDX-License-Identifier: LGPL-2.1-or-later
# The plot of a run: for each workload the servers' ratios to the raw limit.
# report.py sets data, picture, kind (of terminal) and servers (their number).
if (kind eq "svg") {
    set terminal svg size 1400,640 font "sans,13" background "white"
} else {
    set terminal pngcairo size 1400,640 font "sans,11"
}
set output picture
set datafile separator "\t"
set datafile missing "?"
set title "Speed as a ratio to nbdkit's file plugin on the raw file (1 = as fast as the raw file)"
set style data histogram
set style histogram clustered gap 1.5
set style fill solid 0.9 noborder
set boxwidth 0.92
set yrange [0:*<1.6]
set xrange [-0.6:*]
set ylabel "ratio to the raw limit"
set grid ytics lc rgb "#dddddd"
set xtics rotate by 35 right scale 0 noenhanced font ",10"
set key outside top center horizontal noenhanced
set bmargin 11
set lmargin 14
set rmargin 4
set arrow from graph 0, first 1 to graph 1, first 1 nohead lc rgb "#444444" dt 2
array colour[7] = ["#d62728", "#7f7f7f", "#1f77b4", "#17becf", "#2ca02c", "#bcbd22", "#9467bd"]
plot for [i=1:servers] data using i+1:xtic(1) title columnheader(i+1) lc rgb colour[i]
